"""The deterministic all-reduce: every worker's partials in, the same average out at every worker.

The flat vectors are cut into one contiguous range per worker, its owner. Every worker sends each owner its range; the
owner takes the float64 sum of examples_k * w_k in worker order, divides and rounds once, as `nnlib.averaging.Average`
does and to the same bits, applies the outer step to its range, and sends the result to all (a reduce-scatter and an
all-gather: Patarasuk and Yuan 2009; here every owner receives directly, so that the order of the sum is fixed). A
worker sends about 2 (workers - 1) / workers times the vectors' bytes, however many workers there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlib.averaging import Average, Partial, Vector, Weighting
from nnlib.collective.communicator import Communicator
from nnlib.errors import MismatchError

Finish = Callable[[int, slice, Vector], Vector]
"""The outer step on a range: (index of the vector, range, average of shape (range,)) -> what all workers get for it, of
the same shape and dtype."""


@dataclass(frozen=True)
class Reduced:
    """What every worker has after an all-reduce, the same bits at each.

    ``vectors``: for each partial the average (or what the outer step made of it); None if no worker had any weight.
    ``examples``: for each partial those of all workers, in worker order. ``records``: what each worker told the others.
    """

    vectors: list[Vector | None]
    examples: list[list[int]]
    records: list[bytes]


def ranges(sizes: Sequence[int], workers: int) -> list[list[tuple[int, slice]]]:
    """For each worker, the (index of the vector, range) pairs it owns: a contiguous part of all, back to back."""
    total = sum(sizes)
    owned: list[list[tuple[int, slice]]] = []
    for worker in range(workers):
        begin, end = total * worker // workers, total * (worker + 1) // workers
        offset = 0
        own: list[tuple[int, slice]] = []
        for index, size in enumerate(sizes):
            start, stop = max(begin - offset, 0), min(end - offset, size)
            if start < stop:
                own.append((index, slice(start, stop)))
            offset += size
        owned.append(own)
    return owned


def all_reduce(
    communicator: Communicator,
    partials: Sequence[Partial],
    *,
    weighting: Weighting = "examples",
    finish: Finish | None = None,
    record: bytes = b"",
) -> Reduced:
    """Average each of ``partials`` (the trials of a run: one vector each) over all workers.

    Every worker calls it with partials of the same layouts in the same order. A partial of 0 examples counts nothing
    and its vector is not looked at: the average is that of the workers that have examples. ``record`` is handed to all
    workers beside it. Raises, at every worker alike, `MismatchError` for layouts that differ and `DivergedError` for
    values that are not finite; `PeerLostError` and `SupersededError` as the communicator does.
    """
    head = {"layouts": [[each.fingerprint, len(each.weights), each.examples] for each in partials]}
    owned = ranges([len(each.weights) for each in partials], communicator.workers)
    outgoing: list[list[Any]] = [
        [json.dumps(head).encode(), record, *(partials[index].weights[part] for index, part in own)] for own in owned
    ]
    incoming = communicator.exchange(outgoing)
    heads = [json.loads(bytes(frames[0]))["layouts"] for frames in incoming]
    for peer, other in enumerate(heads):
        if [each[:2] for each in other] != [each[:2] for each in heads[0]]:
            raise MismatchError("layouts differ between the workers", worker=peer)
    results: list[Vector] = []
    for place, (index, part) in enumerate(owned[communicator.worker]):
        average = Average(
            [worker for worker in range(communicator.workers) if heads[worker][index][2]] or [0],
            partials[index].fingerprint,
            weighting,
        )
        for worker in average.workers:
            if heads[worker][index][2]:
                piece = np.frombuffer(incoming[worker][2 + place], partials[index].weights.dtype)
                average.add(Partial(worker, heads[worker][index][2], piece, partials[index].fingerprint))
        if average.missing:
            results.append(np.zeros(part.stop - part.start, partials[index].weights.dtype))
        else:
            mean = average.finish()
            results.append(mean if finish is None else finish(index, part, mean))
    gathered = communicator.exchange([results] * communicator.workers)
    vectors: list[Vector | None] = [np.empty_like(each.weights) for each in partials]
    for own, frames in zip(owned, gathered, strict=True):
        for (index, part), frame in zip(own, frames, strict=True):
            vector = vectors[index]
            assert vector is not None
            vector[part] = np.frombuffer(frame, vector.dtype)
    for index in range(len(partials)):
        if not any(other[index][2] for other in heads):
            vectors[index] = None
    return Reduced(
        vectors,
        [[other[index][2] for other in heads] for index in range(len(partials))],
        [bytes(frames[1]) for frames in incoming],
    )
