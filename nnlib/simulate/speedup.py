"""Speed-up, efficiency and improvement, from the seconds of one worker and of many."""

from __future__ import annotations


def improvement(one: float, many: float) -> float:
    """Return the improvement PI % = (T1 - Tx) / T1 * 100; it is negative where many workers are slower than one."""
    return (one - many) / one * 100.0


def speedup(one: float, many: float) -> float:
    """Return the speed-up S = T1 / Tx (Amdahl 1967)."""
    return one / many


def efficiency(one: float, many: float, workers: int) -> float:
    """Return the efficiency E = S / x: 1 where x workers are x times as fast."""
    return speedup(one, many) / workers
