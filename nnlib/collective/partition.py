"""Who owns which part of the vectors in an all-reduce, and in which pieces it travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from nnlib.core.layout import BLOCK, blocks

FEW_BLOCKS = 8
"""With fewer blocks a worker than this, whole ones would be shared out unevenly: ranges are then cut anywhere."""


MESSAGE = 2 * BLOCK
"""Elements in a message at most: 512 KiB of float32. Smaller ones cost more calls, larger ones leave the cache."""


@dataclass(frozen=True)
class Piece:
    """A range of vector ``index``: one frame of a message."""

    index: int
    range: slice


def ranges(sizes: Sequence[int], workers: int) -> list[list[tuple[int, slice]]]:
    """For each worker, the (index of the vector, range) pairs it owns: a contiguous part of all, back to back.

    Ranges end on edges of `nnlib.core.layout.BLOCK` if there are at least `FEW_BLOCKS` blocks for each worker; else
    they are of equal size. Sums are taken element by element, so no cut can change one."""
    pieces = [(index, part) for index, size in enumerate(sizes) if size for part in blocks(size)]
    if len(pieces) >= FEW_BLOCKS * workers:
        edges = [len(pieces) * worker // workers for worker in range(workers + 1)]
        return [_joined(pieces[begin:end]) for begin, end in pairwise(edges)]
    total = sum(sizes)
    owned: list[list[tuple[int, slice]]] = []
    for worker in range(workers):
        begin, end = total * worker // workers, total * (worker + 1) // workers
        own = []
        for index, size in enumerate(sizes):
            start, stop = max(begin, 0), min(end, size)
            if start < stop:
                own.append((index, slice(start, stop)))
            begin, end = begin - size, end - size
        owned.append(own)
    return owned


@lru_cache(maxsize=8)
def messages(sizes: tuple[int, ...], workers: int) -> tuple[tuple[tuple[Piece, ...], ...], ...]:
    """For each owner the messages in which its part travels, each of some pieces, `MESSAGE` elements at most."""
    result = []
    for own in ranges(sizes, workers):
        found: list[tuple[Piece, ...]] = []
        gathered: list[Piece] = []
        elements = 0
        for index, part in own:
            for start in range(part.start - part.start % BLOCK, part.stop, MESSAGE):
                piece = Piece(index, slice(max(start, part.start), min(start + MESSAGE, part.stop)))
                size = piece.range.stop - piece.range.start
                if gathered and elements + size > MESSAGE:
                    found.append(tuple(gathered))
                    gathered, elements = [], 0
                gathered.append(piece)
                elements += size
        if gathered:
            found.append(tuple(gathered))
        result.append(tuple(found))
    return tuple(result)


def _joined(pieces: Sequence[tuple[int, slice]]) -> list[tuple[int, slice]]:
    joined: list[tuple[int, slice]] = []
    for index, part in pieces:
        if joined and joined[-1][0] == index:
            joined[-1] = (index, slice(joined[-1][1].start, part.stop))
        else:
            joined.append((index, part))
    return joined
