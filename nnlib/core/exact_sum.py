"""Exact sums: `math.fsum` for numbers that may not be finite."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exact_sum(values: Sequence[float]) -> float:
    """Sum the values, correctly rounded whatever their order; not finite where a value or the sum is not."""
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):
        return math.nan
