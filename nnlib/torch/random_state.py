"""torch's random numbers, keyed: every draw of a module follows from a seed that is set just before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def restored_random_state() -> Iterator[None]:
    """Bring torch's CPU generator back to where it was when the block ends: it belongs to the user's program."""
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
