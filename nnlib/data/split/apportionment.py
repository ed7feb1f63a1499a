"""Divide totals among classes in proportion, with every count a whole number (controlled rounding)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


def apportion(rows: Sequence[int], totals: Sequence[int]) -> list[list[int]]:
    """Divide the rows of each class among parts of fixed sizes.

    ``rows[c]``: rows of class c. ``totals[p]``: rows of part p, all classes together. Returns counts ``s[c][p]`` whose
    sums are ``rows[c]`` over the parts and ``totals[p]`` over the classes, each the exact proportion
    rows[c] * totals[p] / n rounded up or down. Raises `ValueError` unless ``sum(rows) == sum(totals)``.

    The proportions are rounded down, and what is then missing goes to the largest remainders (the lower class, then the
    lower part, among equals). Where that leaves a class and a part both short, units are moved along an augmenting
    path. One exists, because the proportions are a fractional solution of the same transport problem (Cox 1987, "A
    constructive procedure for unbiased controlled rounding").
    """
    n = sum(rows)
    if n != sum(totals):
        raise ValueError(f"rows sum to {n}, totals to {sum(totals)}")
    if n == 0:
        return [[0] * len(totals) for _ in rows]
    floors = [[count * total // n for total in totals] for count in rows]
    remainders = [[count * total % n for total in totals] for count in rows]
    short_rows = [count - sum(row) for count, row in zip(rows, floors, strict=True)]
    short_parts = [total - sum(row[part] for row in floors) for part, total in enumerate(totals)]
    raised = [[False] * len(totals) for _ in rows]
    cells = [(c, p) for c, row in enumerate(remainders) for p, remainder in enumerate(row) if remainder]
    for c, p in sorted(cells, key=lambda cell: (-remainders[cell[0]][cell[1]], cell)):
        if short_rows[c] and short_parts[p]:
            raised[c][p] = True
            short_rows[c] -= 1
            short_parts[p] -= 1
    for c in range(len(rows)):
        for _ in range(short_rows[c]):
            short_parts[_augment(c, remainders, raised, short_parts)] -= 1
    return [[floor + up for floor, up in zip(*pair, strict=True)] for pair in zip(floors, raised, strict=True)]


def _augment(start: int, remainders: list[list[int]], raised: list[list[bool]], short_parts: Sequence[int]) -> int:
    """Raise one more cell of class ``start``, moving units of other classes where needed; return the part whose count
    grew."""
    parts = range(len(short_parts))
    came: dict[int, tuple[int, int | None]] = {}  # part -> (class that would enter it, the part that class leaves)
    queue: deque[int] = deque()
    for p in parts:
        if remainders[start][p] and not raised[start][p]:
            came[p] = (start, None)
            queue.append(p)
    while queue:
        p = queue.popleft()
        if short_parts[p]:
            end, step = p, p
            while True:
                c, left = came[step]
                raised[c][step] = True
                if left is None:
                    return end
                raised[c][left] = False
                step = left
        for c in range(len(raised)):
            if raised[c][p]:
                for other in parts:
                    if other not in came and remainders[c][other] and not raised[c][other]:
                        came[other] = (c, p)
                        queue.append(other)
    raise AssertionError("the proportions are a fractional solution, so a path exists")
