"""torch's random numbers, keyed: every draw of a module follows from a seed that is set just before it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def restored_random_state() -> Iterator[None]:
    """Bring torch's CPU generator back to where it was when the block ends: it belongs to the user's program."""
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


@contextmanager
def seeded_randomness(seed: int) -> Iterator[None]:
    """Let a block draw from ``seed``: by torch, by `random` and by numpy's old global generator. After it all three are
    where they were."""
    python, old = random.getstate(), np.random.get_state()
    with restored_random_state():
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(old)
