"""Importing: other people's files into a dataset of Parquet shards."""
