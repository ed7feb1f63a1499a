"""The deterministic all-reduce: every worker's partials in, the same average out at every worker.

The flat vectors are cut into one contiguous range per worker, its owner. Every worker sends each owner its range; the
owner takes the float64 sum of examples_k * w_k in worker order, divides and rounds once, as
`nnlib.aggregation.average.Average` does and to the same bits, applies the outer step to its range, and sends the result
to all: a reduce-scatter and an all-gather (Thakur, Rabenseifner and Gropp 2005), in which every owner receives
directly, so that the order of the sum is fixed. A worker sends 2 (workers - 1) / workers times the vectors' bytes,
however many workers there are.

Both halves run piece by piece at once: a piece is summed as soon as all have sent theirs, while it lies in the cache,
and is on its way back while the next ones arrive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nnlib.aggregation.average import MAX_EXAMPLES, Partial, Weighting
from nnlib.collective.communicator import Communicator, Frames
from nnlib.collective.partition import Piece, messages
from nnlib.core.arrays import Buffer, Vector
from nnlib.core.errors import DivergedError, MismatchError, NnjobsError, from_record
from nnlib.core.layout import BLOCK

Finish = Callable[[int, slice, Vector], Vector]
"""The outer step on a range within one block: (index of the vector, range, average of shape (range,)) -> what all
workers get for it, of the same shape and dtype."""


class Codec(Protocol):
    """How a partial's weights travel in fewer bytes: the same values come out at their owner as the partial has."""

    def pack(self, part: slice) -> Buffer:
        """The bytes of a range of this worker's own partial."""

    def unpack(self, data: Buffer, part: slice) -> Vector:
        """The values of a range of any worker's, from its bytes."""


@dataclass(frozen=True)
class Reduced:
    """What every worker has after an all-reduce, the same bits at each.

    ``vectors``: for each partial the average (or what the outer step made of it); None if no worker had any examples.
    ``examples``: for each partial those of all workers, in worker order. ``records``: what each worker told the others.
    """

    vectors: list[Vector | None]
    examples: list[list[int]]
    records: list[bytes]


def all_reduce(
    communicator: Communicator,
    partials: Sequence[Partial],
    *,
    weighting: Weighting = "examples",
    finish: Finish | None = None,
    record: bytes = b"",
    out: Sequence[Vector] | None = None,
    codecs: Sequence[Codec | None] | None = None,
) -> Reduced:
    """Average each of ``partials`` (the trials of a run: one vector each) over all workers.

    Every worker calls it with partials of the same layouts in the same order. A partial of 0 examples counts nothing
    and its values are not looked at: the average is that of the workers that have examples. ``record`` is handed to all
    workers beside it. ``out``: vectors to write the results to, not those of the partials; default: new ones. The
    partials may be overwritten once this has returned. ``codecs``: for each partial how its ranges travel to their
    owners, the same kind at all workers; None, and by default: as they lie.

    Raises, at every worker alike, `MismatchError` for layouts that differ, `DivergedError` for values that are not
    finite and whatever ``finish`` raises of `NnjobsError`; `PeerLostError` and `SupersededError` as the communicator
    does.
    """
    return _AllReduce(communicator, partials, weighting, finish, record, out, codecs).run()


class _AllReduce:
    """The state of one call."""

    def __init__(
        self,
        communicator: Communicator,
        partials: Sequence[Partial],
        weighting: Weighting,
        finish: Finish | None,
        record: bytes,
        out: Sequence[Vector] | None,
        codecs: Sequence[Codec | None] | None,
    ) -> None:
        self.communicator = communicator
        self.worker = communicator.worker
        self.others = [(self.worker + step) % communicator.workers for step in range(1, communicator.workers)]
        self.partials = partials
        self.weighting = weighting
        self.finish = finish
        self.record = record
        self.codecs = [None] * len(partials) if codecs is None else codecs
        self.out = [np.empty_like(each.weights) for each in partials] if out is None else list(out)
        self.parts = messages(tuple(len(each.weights) for each in partials), communicator.workers)
        self.layouts = [[each.fingerprint, len(each.weights), each.weights.dtype.str] for each in partials]
        self.examples: list[list[int]] = [[0] * communicator.workers for _ in partials]
        self.records = [record] * communicator.workers
        self.sum = np.empty(BLOCK)
        self.scaled = np.empty(BLOCK)

    def run(self) -> Reduced:
        self._check_own()
        for peer in self.others:  # each begins with another, lest all send to the same one first
            self._scatter(peer)
        self._take_head(self.worker, [each.examples for each in self.partials])
        arrived: list[dict[int, Frames]] = [{} for _ in self.parts[self.worker]]
        turn = dict.fromkeys(self.others, -1)  # of each peer's messages: its head, the pieces for us, its results
        last = {peer: len(arrived) + len(self.parts[peer]) for peer in self.others}
        summed = 0
        expected = set(self.others)
        while True:
            while summed < len(arrived) and len(arrived[summed]) == len(self.others) and -1 not in turn.values():
                self._reduce(self.parts[self.worker][summed], arrived[summed])
                arrived[summed] = {}
                summed += 1
            if not expected:
                break
            peer, frames = self.communicator.receive(expected)
            turn[peer] += 1
            if turn[peer] == 0:
                self._read_head(peer, frames)
            elif turn[peer] <= len(arrived):
                arrived[turn[peer] - 1][peer] = frames
            else:
                self._gather(self.parts[peer][turn[peer] - 1 - len(arrived)], frames)
            if turn[peer] == last[peer]:
                expected.remove(peer)
        vectors: list[Vector | None] = [
            vector if any(examples) else None for vector, examples in zip(self.out, self.examples, strict=True)
        ]
        return Reduced(vectors, self.examples, self.records)

    def _check_own(self) -> None:
        for partial in self.partials:
            if partial.weights.ndim != 1 or partial.weights.dtype not in (np.float32, np.float64):
                raise MismatchError(
                    f"expected a vector of float32 or float64, got shape {partial.weights.shape} "
                    f"{partial.weights.dtype}",
                    worker=self.worker,
                )
            if not 0 <= partial.examples <= MAX_EXAMPLES:
                raise MismatchError(f"a partial has 0 to 2**53 examples, got {partial.examples}", worker=self.worker)

    def _scatter(self, peer: int) -> None:
        """Send a peer what it must know, then the pieces it owns."""
        examples = [int(each.examples) for each in self.partials]
        head = json.dumps({"layouts": self.layouts, "weighting": self.weighting, "examples": examples})
        self.communicator.send(peer, [head.encode(), self.record])
        for pieces in self.parts[peer]:
            self.communicator.send(peer, [self._packed(piece) for piece in pieces])

    def _packed(self, piece: Piece) -> Buffer:
        codec = self.codecs[piece.index]
        return self.partials[piece.index].weights[piece.range] if codec is None else codec.pack(piece.range)

    def _unpacked(self, piece: Piece, frame: Buffer) -> Vector:
        codec = self.codecs[piece.index]
        dtype = self.partials[piece.index].weights.dtype
        return np.frombuffer(frame, dtype) if codec is None else codec.unpack(frame, piece.range)

    def _read_head(self, peer: int, frames: Frames) -> None:
        head = json.loads(bytes(frames[0]))
        if (head["layouts"], head["weighting"]) != (self.layouts, self.weighting):
            raise MismatchError(
                f"worker {peer} has other vectors than worker {self.worker}: "
                f"{head['weighting']} {head['layouts']} against {self.weighting} {self.layouts}",
                worker=peer,
            )
        self.records[peer] = bytes(frames[1])
        self._take_head(peer, head["examples"])

    def _take_head(self, worker: int, examples: Sequence[int]) -> None:
        for own, number in zip(self.examples, examples, strict=True):
            own[worker] = number

    def _reduce(self, pieces: Sequence[Piece], arrived: dict[int, Frames]) -> None:
        """Average the pieces of one message and send the results to all."""
        try:
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is looked for
                results = [self._average(place, piece, arrived) for place, piece in enumerate(pieces)]
        except NnjobsError as error:
            for peer in self.others:  # all are to stop with the same error, not with a lost peer
                self.communicator.send(peer, [b"", json.dumps(error.to_record()).encode()])
            raise
        for peer in self.others:
            self.communicator.send(peer, results)
        self._gather(pieces, results)

    def _average(self, place: int, piece: Piece, arrived: dict[int, Frames]) -> Vector:
        """The result for a piece, block by block: what is summed at a time stays in a core's own cache."""
        own = self.partials[piece.index].weights
        counted = [worker for worker, number in enumerate(self.examples[piece.index]) if number]
        given = [
            own[piece.range] if worker == self.worker else self._unpacked(piece, arrived[worker][place])
            for worker in counted
        ]
        begin, end = piece.range.start, piece.range.stop
        if not given:
            return np.zeros(end - begin, own.dtype)
        result = np.empty(end - begin, own.dtype)
        for start in range(begin - begin % BLOCK, end, BLOCK):
            part = slice(max(start, begin), min(start + BLOCK, end))
            here = slice(part.start - begin, part.stop - begin)
            mean = self._mean(piece.index, part, counted, [values[here] for values in given], result[here])
            if self.finish is not None:
                result[here] = self.finish(piece.index, part, mean)
        return result

    def _mean(self, index: int, part: slice, counted: Sequence[int], given: Sequence[Vector], mean: Vector) -> Vector:
        """``mean`` filled with the average of what the counted workers gave for a range within a block."""
        total, scaled = self.sum[: len(mean)], self.scaled[: len(mean)]
        weights = [self.examples[index][worker] if self.weighting == "examples" else 1 for worker in counted]
        for turn, (values, weight) in enumerate(zip(given, weights, strict=True)):
            target = scaled if turn else total
            np.copyto(target, values)
            target *= weight
            if turn:
                total += scaled
        if not math.isfinite(np.add.reduce(total)):
            self._refuse_not_finite(part, counted, given)
        if len(given) == 1:
            np.copyto(mean, given[0])
        else:
            total /= sum(weights)
            np.copyto(mean, total, casting="same_kind")
        return mean

    def _refuse_not_finite(self, part: slice, counted: Sequence[int], given: Sequence[Vector]) -> None:
        """A sum is not finite if a summand is not, but may also have overflowed."""
        for worker, values in zip(counted, given, strict=True):
            finite = np.isfinite(values)
            if not finite.all():
                index = int(np.argmin(finite))
                raise DivergedError(f"weight {part.start + index} is {values[index]}", worker=worker)

    def _gather(self, pieces: Sequence[Piece], frames: Frames) -> None:
        if len(frames) == 2 and not len(frames[0]):
            raise from_record(json.loads(bytes(frames[1])))
        for piece, frame in zip(pieces, frames, strict=True):
            vector = self.out[piece.index]
            vector[piece.range] = np.frombuffer(frame, vector.dtype)
