"""Cutting a net into sub-nets: which hidden units belong together, and what a partition of them is like."""
