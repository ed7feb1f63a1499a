"""Which worker owns which part of the vectors in an all-reduce, and in which pieces the part travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from nnlib.core.layout import BLOCK, blocks

FEW_BLOCKS = 8
"""With fewer blocks a worker than this, whole ones would be distributed unevenly: ranges are then cut anywhere."""

MESSAGE = 2 * BLOCK
"""Elements in a message at most: 512 KiB of float32. Smaller ones cost more calls, larger ones leave the cache."""


@dataclass(frozen=True)
class Piece:
    """A range of vector ``index``: one frame of a message."""

    index: int
    range: slice


def ranges(sizes: Sequence[int], workers: int) -> list[list[tuple[int, slice]]]:
    """Compute for each worker the (index of the vector, range) pairs that it owns: a contiguous part of all vectors
    laid back to back.

    Ranges end on edges of `nnlib.core.layout.BLOCK` if there are at least `FEW_BLOCKS` blocks for each worker; else
    they are of equal size. Sums are taken element by element, so no cut can change one.
    """
    pieces = [(index, part) for index, size in enumerate(sizes) if size for part in blocks(size)]
    if len(pieces) >= FEW_BLOCKS * workers:
        edges = [len(pieces) * worker // workers for worker in range(workers + 1)]
        return [_joined(pieces[begin:end]) for begin, end in pairwise(edges)]
    total = sum(sizes)
    owned: list[list[tuple[int, slice]]] = []
    for worker in range(workers):
        begin, end = total * worker // workers, total * (worker + 1) // workers
        part = []
        for index, size in enumerate(sizes):
            start, stop = max(begin, 0), min(end, size)
            if start < stop:
                part.append((index, slice(start, stop)))
            begin, end = begin - size, end - size
        owned.append(part)
    return owned


@lru_cache(maxsize=8)
def messages(sizes: tuple[int, ...], workers: int) -> tuple[tuple[tuple[Piece, ...], ...], ...]:
    """Compute for each owner the messages in which its part travels: lists of pieces, `MESSAGE` elements at most."""
    result = []
    for owned in ranges(sizes, workers):
        complete: list[tuple[Piece, ...]] = []
        pieces: list[Piece] = []
        elements = 0
        for index, part in owned:
            for start in range(part.start - part.start % BLOCK, part.stop, MESSAGE):
                piece = Piece(index, slice(max(start, part.start), min(start + MESSAGE, part.stop)))
                size = piece.range.stop - piece.range.start
                if pieces and elements + size > MESSAGE:
                    complete.append(tuple(pieces))
                    pieces, elements = [], 0
                pieces.append(piece)
                elements += size
        if pieces:
            complete.append(tuple(pieces))
        result.append(tuple(complete))
    return tuple(result)


def _joined(pieces: Sequence[tuple[int, slice]]) -> list[tuple[int, slice]]:
    joined: list[tuple[int, slice]] = []
    for index, part in pieces:
        if joined and joined[-1][0] == index:
            joined[-1] = (index, slice(joined[-1][1].start, part.stop))
        else:
            joined.append((index, part))
    return joined
