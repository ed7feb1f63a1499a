"""The job of a round: its map and reduce tasks, and what is put together from their output."""
