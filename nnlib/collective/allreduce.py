"""The deterministic all-reduce: every worker's partials in, the same averages out at every worker.

The vectors are cut into one contiguous range per worker, its owner. Every worker sends each owner its range; the owner
takes the float64 sum of examples_k * w_k in worker order, divides and rounds once, as
`nnlib.aggregation.average.Average` does and to the same bits, and sends the result to all: a reduce-scatter and an
all-gather (Thakur, Rabenseifner and Gropp 2005), in which every owner receives directly, so that the order of the sum
is fixed. A worker sends 2 (workers - 1) / workers times the vectors' bytes, however many workers there are. Vectors of
buffers are combined by their own rule, but cut, sent and owned in the same way.

Both halves run piece by piece at once: a piece is summed as soon as all have sent theirs, while it lies in the cache,
and is on its way back while the next ones arrive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nnlib.aggregation.average import (
    MAX_EXAMPLES,
    Partial,
    Weighting,
    check_finite,
    check_vector,
    combine_exactly,
)
from nnlib.collective.communicator import Communicator, Frames
from nnlib.collective.partition import Piece, messages
from nnlib.core.arrays import Buffer, Vector
from nnlib.core.entries import Segment
from nnlib.core.errors import MismatchError, NnjobsError, from_record
from nnlib.core.layout import BLOCK


class Codec(Protocol):
    """How a partial's weights travel in fewer bytes: the owner of a range gets the same values as the partial has."""

    def pack(self, part: slice) -> Buffer:
        """Encode a range of this worker's partial."""

    def unpack(self, data: Buffer, part: slice) -> Vector:
        """Decode a range of any worker's partial."""


@dataclass(frozen=True)
class Operand:
    """A vector to average: this worker's partial, and how the workers' partials are combined and sent.

    All but ``partial`` are the same at every worker: ``weighting`` of a mean; ``codec``, without which values travel as
    they are; ``segment`` of a layout whose vector this is, without which it is a model's flat vector.
    """

    partial: Partial
    weighting: Weighting = "examples"
    codec: Codec | None = None
    segment: Segment | None = None

    @property
    def values(self) -> Vector:
        """This worker's values."""
        return self.partial.weights

    def check(self, worker: int) -> None:
        """Refuse a partial that no all-reduce can take, with a `MismatchError`."""
        check_vector(self.values, self.segment, worker)
        examples = self.partial.examples
        if not 0 <= examples <= MAX_EXAMPLES:
            raise MismatchError(f"a partial has 0 to 2**53 examples, got {examples}", worker=worker)

    def description(self) -> list[str | int]:
        """What must be the same at all workers, as JSON-able data."""
        return [self.partial.fingerprint, len(self.values), self.values.dtype.str, self.weighting]


@dataclass(frozen=True)
class Reduced:
    """What every worker has after an all-reduce, the same bits at each.

    ``vectors``: the combination of each operand's partials; None if no worker had any examples. ``examples``: of each
    operand those of all workers, in worker order. ``records``: every worker's record.
    """

    vectors: list[Vector | None]
    examples: list[list[int]]
    records: list[bytes]


def all_reduce(communicator: Communicator, operands: Sequence[Operand], *, record: bytes = b"") -> Reduced:
    """Average the partials of each operand over all workers.

    Every worker calls it with operands of the same layouts in the same order. A partial of 0 examples counts nothing
    and its values are not looked at: the average is that of the workers that have examples. ``record`` is sent to all
    workers along with the vectors. The partials may be overwritten once this has returned.

    Raises, at every worker alike, `MismatchError` for layouts that differ and for values that differ though they are to
    be kept, and `DivergedError` for values that are not finite; `PeerLostError` and `SupersededError` as the
    communicator does.
    """
    return _AllReduce(communicator, operands, record).run()


class _AllReduce:
    """The state of one call."""

    def __init__(self, communicator: Communicator, operands: Sequence[Operand], record: bytes) -> None:
        self.communicator = communicator
        self.worker = communicator.worker
        self.others = [(self.worker + step) % communicator.workers for step in range(1, communicator.workers)]
        self.operands = operands
        self.record = record
        self.results = [np.empty_like(operand.values) for operand in operands]
        self.parts = messages(tuple(len(operand.values) for operand in operands), communicator.workers)
        self.descriptions = [operand.description() for operand in operands]
        self.examples: list[list[int]] = [[0] * communicator.workers for _ in operands]
        self.records = [record] * communicator.workers
        self.sum = np.empty(BLOCK)
        self.scaled = np.empty(BLOCK)

    def run(self) -> Reduced:
        for operand in self.operands:
            operand.check(self.worker)
        for peer in self.others:  # each begins with another, lest all send to the same one first
            self._scatter(peer)
        self._take_examples(self.worker, [operand.partial.examples for operand in self.operands])
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
            vector if any(examples) else None for vector, examples in zip(self.results, self.examples, strict=True)
        ]
        return Reduced(vectors, self.examples, self.records)

    def _scatter(self, peer: int) -> None:
        """Send a peer the head and the record, then the pieces it owns."""
        examples = [int(operand.partial.examples) for operand in self.operands]
        head = json.dumps({"vectors": self.descriptions, "examples": examples})
        self.communicator.send(peer, [head.encode(), self.record])
        for pieces in self.parts[peer]:
            self.communicator.send(peer, [self._packed(piece) for piece in pieces])

    def _packed(self, piece: Piece) -> Buffer:
        operand = self.operands[piece.index]
        return operand.values[piece.range] if operand.codec is None else operand.codec.pack(piece.range)

    def _unpacked(self, piece: Piece, frame: Buffer) -> Vector:
        operand = self.operands[piece.index]
        if operand.codec is None:
            return np.frombuffer(frame, operand.values.dtype)
        return operand.codec.unpack(frame, piece.range)

    def _read_head(self, peer: int, frames: Frames) -> None:
        head = json.loads(bytes(frames[0]))
        if head["vectors"] != self.descriptions:
            raise MismatchError(
                f"worker {peer} has other vectors than worker {self.worker}: {head['vectors']} against "
                f"{self.descriptions}",
                worker=peer,
            )
        self.records[peer] = bytes(frames[1])
        self._take_examples(peer, head["examples"])

    def _take_examples(self, worker: int, examples: Sequence[int]) -> None:
        for by_worker, number in zip(self.examples, examples, strict=True):
            by_worker[worker] = number

    def _reduce(self, pieces: Sequence[Piece], arrived: dict[int, Frames]) -> None:
        """Average the pieces of one message and send the results to all."""
        try:
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is looked for
                results = [self._average(position, piece, arrived) for position, piece in enumerate(pieces)]
        except NnjobsError as error:
            for peer in self.others:  # all are to stop with the same error, not with a lost peer
                self.communicator.send(peer, [b"", json.dumps(error.to_record()).encode()])
            raise
        for peer in self.others:
            self.communicator.send(peer, results)
        self._gather(pieces, results)

    def _average(self, position: int, piece: Piece, arrived: dict[int, Frames]) -> Vector:
        """Combine a piece, the one at ``position`` of its message, over the workers that have examples."""
        operand = self.operands[piece.index]
        counted = [worker for worker, number in enumerate(self.examples[piece.index]) if number]
        values = [
            operand.values[piece.range] if worker == self.worker else self._unpacked(piece, arrived[worker][position])
            for worker in counted
        ]
        begin, end = piece.range.start, piece.range.stop
        if not counted:
            return np.zeros(end - begin, operand.values.dtype)
        if operand.segment is not None and operand.segment.rule != "mean":
            return _combined_exactly(operand.segment, begin, counted, values)
        weights = [self.examples[piece.index][worker] if operand.weighting == "examples" else 1 for worker in counted]
        result = np.empty(end - begin, operand.values.dtype)
        for start in range(begin - begin % BLOCK, end, BLOCK):  # what is summed at a time stays in a core's own cache
            first, stop = max(start, begin), min(start + BLOCK, end)
            part = slice(first - begin, stop - begin)
            self._mean(first, counted, weights, [each[part] for each in values], result[part])
        return result

    def _mean(
        self, offset: int, counted: Sequence[int], weights: Sequence[int], values: Sequence[Vector], mean: Vector
    ) -> None:
        """Fill ``mean`` with the average of a range within a block, which begins at ``offset`` of its vector."""
        total, scaled = self.sum[: len(mean)], self.scaled[: len(mean)]
        for turn, (each, weight) in enumerate(zip(values, weights, strict=True)):
            target = scaled if turn else total
            np.copyto(target, each)
            target *= weight
            if turn:
                total += scaled
        if not math.isfinite(np.add.reduce(total)):
            # A sum is not finite if a summand is not, but may also have overflowed.
            for worker, each in zip(counted, values, strict=True):
                check_finite(each, worker, offset)
        if len(values) == 1:
            np.copyto(mean, values[0])
        else:
            total /= sum(weights)
            np.copyto(mean, total, casting="same_kind")

    def _gather(self, pieces: Sequence[Piece], frames: Frames) -> None:
        if len(frames) == 2 and not len(frames[0]):
            raise from_record(json.loads(bytes(frames[1])))
        for piece, frame in zip(pieces, frames, strict=True):
            vector = self.results[piece.index]
            vector[piece.range] = np.frombuffer(frame, vector.dtype)


def _combined_exactly(segment: Segment, offset: int, counted: Sequence[int], values: Sequence[Vector]) -> Vector:
    """Combine a range of the counted workers' values by the rule max or keep."""
    if segment.rule == "max":
        for worker, each in zip(counted, values, strict=True):
            check_finite(each, worker, offset)
    total = values[0].copy()  # the partial may be overwritten before all peers have read the result
    for worker, each in zip(counted[1:], values[1:], strict=True):
        total = combine_exactly(total, each, segment, offset=offset, worker=worker, first=counted[0])
    return total
