"""Numbers that a paper has published, to compare ours with: never used in a computation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A row of Tables 1 and 2: accuracies in per cent, seconds by number of workers (1: the sequential program)."""

    epochs: int
    sequential: float
    parallel: float
    seconds: dict[int, float]


PAPER_TITLE = "Distributed Neural Networks: A Parallel Approach"
PAPER = (
    PaperRow(100, 80.67, 84.06, {1: 244.0, 2: 211.0, 4: 209.0, 8: 217.0}),
    PaperRow(200, 86.89, 87.28, {1: 494.0, 2: 337.0, 4: 318.0, 8: 345.0}),
    PaperRow(250, 88.63, 86.45, {1: 622.0, 2: 406.0, 4: 398.0, 8: 431.0}),
    PaperRow(500, 89.90, 88.93, {1: 1225.0, 2: 790.0, 4: 746.0, 8: 807.0}),
)
"""Means over ten splits of 5000 digits; the paper has one parallel accuracy for all numbers of workers."""
