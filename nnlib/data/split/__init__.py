"""Divide rows into parts for training, validation and test: the rule, how it is fitted, and its counts."""
