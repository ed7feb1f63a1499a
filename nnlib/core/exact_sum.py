"""Exact sums: `math.fsum` that keeps what is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exact_sum(values: Sequence[float]) -> float:
    """The correctly rounded sum, whatever the order; not a finite number where a value or the sum is none."""
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):
        return math.nan
