"""The words of a scaling study, as functions of seconds."""

from __future__ import annotations


def improvement(one: float, many: float) -> float:
    """PI % = (T1 - Tx) / T1 * 100: below 0 where more workers are slower."""
    return (one - many) / one * 100.0


def speedup(one: float, many: float) -> float:
    """S = T1 / Tx (Amdahl 1967)."""
    return one / many


def efficiency(one: float, many: float, workers: int) -> float:
    """E = S / x: 1 where x workers are x times as fast."""
    return speedup(one, many) / workers
