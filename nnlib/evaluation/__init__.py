"""Comparing runs: tables of scores, statistics over splits, the choice of a sweep's model."""
