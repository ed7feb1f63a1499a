"""Documents, one after another, as blocks of a fixed number of tokens.

A document begins a block, unless documents are packed and it fits whole into what is left of the last one. The last
block of a document is filled up with padding, which does not count. So blocks that share a document are neighbours:
they are one group, and splits keep a group together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Kept = tuple[object, ...]
"""The values of the columns that are kept, in order."""


@dataclass(frozen=True)
class Document:
    """The tokens of a document, shape (n,), whether each counts, and the values of its kept columns.

    ``key`` is equal for equal texts.
    """

    tokens: Int64
    counts: Bool
    key: int
    kept: Kept = ()


@dataclass(frozen=True)
class Block:
    """A block, shape (length,): its tokens and which of them the loss counts; its group and kept columns."""

    tokens: Int64
    counts: Bool
    group: int
    kept: Kept


def key_of(text: str) -> int:
    """Return a number of 63 bits that stands for a text: that of every equal one."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class BlockPacker:
    """Cuts documents into blocks of ``length`` tokens; ``pad`` fills them up.

    The first token of a block never counts: nothing before it predicts it. A block in which no token counts is left
    out.
    """

    def __init__(self, length: int, pad: int, *, pack: bool) -> None:
        self._length, self._pad, self._pack = length, pad, pack
        self._tokens = np.full(length, pad, np.int64)
        self._counts = np.zeros(length, np.bool_)
        self._filled, self._group = 0, 0
        self._kept: Kept = ()

    def add(self, document: Document) -> Iterator[Block]:
        """Yield the blocks that are complete once ``document`` is added."""
        size, length = len(document.tokens), self._length
        fits = self._pack and size <= length - self._filled and document.kept == self._kept
        if self._filled and not fits:
            yield from self.flush()
        if not self._filled:
            self._group, self._kept = document.key, document.kept
        start = 0
        while start < size:
            part = slice(start, start + length - self._filled)
            taken = len(document.tokens[part])
            here = slice(self._filled, self._filled + taken)
            self._tokens[here], self._counts[here] = document.tokens[part], document.counts[part]
            self._filled += taken
            start += taken
            if self._filled == length:
                yield from self.flush()

    def flush(self) -> Iterator[Block]:
        """Yield the block that is not full yet, if any token of it counts."""
        self._counts[0] = False
        if self._filled and self._counts.any():
            yield Block(self._tokens.copy(), self._counts.copy(), self._group, self._kept)
        self._tokens.fill(self._pad)
        self._counts.fill(False)
        self._filled = 0
