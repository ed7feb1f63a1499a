"""The long-lived job whose workers average among themselves."""
