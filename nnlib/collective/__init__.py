"""Workers that average among themselves: a group of peers, how they find each other and how they all-reduce."""
