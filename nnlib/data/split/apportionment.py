"""Divide exact totals among classes in proportion, every share rounded up or down (controlled rounding)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


def apportion(rows: Sequence[int], totals: Sequence[int]) -> list[list[int]]:
    """Shares ``s[c][p]`` with row sums ``rows[c]``, column sums ``totals[p]``, each within one of its proportion.

    ``sum(rows) == sum(totals)`` must hold. The exact share rows[c] * totals[p] / n is rounded down, and what is then
    missing goes to the largest remainders (the lower class, then the lower part, among equals). Where that leaves a
    class and a part both short, units are moved along an augmenting path; one exists, because the exact shares are a
    fractional solution of the same transport problem (Cox 1987, "A constructive procedure for unbiased controlled
    rounding").
    """
    n = sum(rows)
    if n != sum(totals):
        raise ValueError(f"rows sum to {n}, totals to {sum(totals)}")
    if n == 0:
        return [[0] * len(totals) for _ in rows]
    shares = [[own * total // n for total in totals] for own in rows]
    remainders = [[own * total % n for total in totals] for own in rows]
    short_rows = [own - sum(share) for own, share in zip(rows, shares, strict=True)]
    short_parts = [total - sum(share[part] for share in shares) for part, total in enumerate(totals)]
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
    return [[share + up for share, up in zip(*pair, strict=True)] for pair in zip(shares, raised, strict=True)]


def _augment(start: int, remainders: list[list[int]], raised: list[list[bool]], short_parts: Sequence[int]) -> int:
    """Raise one more cell of class ``start``, moving other classes' units as needed; the part that took the unit."""
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
    raise AssertionError("the exact shares are a fractional solution, so a path exists")
