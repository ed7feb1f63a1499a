"""All randomness, as pure functions of its purpose.

A generator is keyed by (seed, purpose, split, fold, epoch, worker, perhaps step) through `numpy.random.SeedSequence`;
nothing adds seeds, reads a clock or remembers a state, so jumping to epoch 7 equals walking there.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]


class Purpose(IntEnum):
    """The purpose of random numbers. The values are part of every result: never reuse or renumber."""

    INIT = 1
    SPLIT = 2
    FOLD = 3
    SAMPLE = 4
    ORDER = 5
    SYNTH = 6
    ASSIGN = 7
    SHUFFLE = 8
    SIMULATE = 9
    MODULE = 10
    AUGMENT = 11
    PARTITION = 12


def sequence(
    seed: int,
    purpose: Purpose,
    *,
    split: int = 0,
    fold: int = 0,
    epoch: int = 0,
    worker: int = 0,
    step: int | None = None,
) -> np.random.SeedSequence:
    """Return the seed sequence of one use. All arguments are integers >= 0; ``step`` None: the use has no steps."""
    steps = () if step is None else (step,)
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), split, fold, epoch, worker, *steps))


def generator(
    seed: int,
    purpose: Purpose,
    *,
    split: int = 0,
    fold: int = 0,
    epoch: int = 0,
    worker: int = 0,
    step: int | None = None,
) -> np.random.Generator:
    """Make a PCG64 generator for one use; same arguments, same stream."""
    key = sequence(seed, purpose, split=split, fold=fold, epoch=epoch, worker=worker, step=step)
    return np.random.Generator(np.random.PCG64(key))


def hash_key(
    seed: int, purpose: Purpose, *, split: int = 0, fold: int = 0, epoch: int = 0, worker: int = 0
) -> tuple[int, int]:
    """Draw a 128-bit key for `row_hash`, as two integers below 2**64."""
    key = sequence(seed, purpose, split=split, fold=fold, epoch=epoch, worker=worker)
    first, second = key.generate_state(2, np.uint64)
    return int(first), int(second)


def _mix(values: UInt64) -> UInt64:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit words."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def row_hash(rows: npt.NDArray[np.int64], key: tuple[int, int]) -> UInt64:
    """Compute a keyed hash of each row id: a row's random number, in whatever order and on whatever worker.

    ``rows`` has shape (n,); the result has shape (n,) and dtype uint64. The map is a bijection of row ids
    for any key, so two rows never tie.
    """
    words = np.ascontiguousarray(rows).astype(np.uint64)
    mixed = _mix(words + np.uint64(key[0]))
    return _mix(mixed ^ np.uint64(key[1]))
