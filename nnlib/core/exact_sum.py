"""Exact sums: `math.fsum` for numbers that may not be finite, and how such numbers are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exact_sum(values: Sequence[float]) -> float:
    """Sum the values, correctly rounded whatever their order; not finite where a value or the sum is not."""
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):
        return math.nan


def finite_or_none(value: float) -> float | None:
    """Return the value, or None where it is not finite: JSON has no NaN."""
    return value if math.isfinite(value) else None
