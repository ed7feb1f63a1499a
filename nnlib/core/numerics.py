"""A fingerprint of the bits that this machine's numpy computes: of its BLAS kernel and of its exponential.

Two machines of different fingerprints may both be right and still differ in the last bit, so their partials are not
mixed unless `runtime.numerics: loose`, and a replay elsewhere is reported as "another kernel", not as tampering.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Compute 16 hex digits over a probe product (odd sizes, so that edge kernels count) and exp, log and tanh."""
    values = (np.arange(203 * 211, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(4093)).astype(np.float64)
    left = (values / 4093.0 - 0.5).reshape(203, 211)
    digest = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        probe: npt.NDArray[Any] = left.astype(dtype)
        digest.update((probe @ probe.T).tobytes())
        digest.update((probe.T @ probe[:, 0]).tobytes())
        for function in (np.exp, np.tanh, np.log1p):
            digest.update(function(probe).tobytes())
    return digest.hexdigest()[:16]


class _Follower:
    """A library with threads of its own, whose number follows `blas_threads`."""

    def __init__(self, read: Callable[[], int], write: Callable[[int], object]) -> None:
        self.read, self.write = read, write
        self.own = read()


_followers: list[_Follower] = []
_running: list[int] = []
"""The numbers of threads of the blocks of `blas_threads` that run, the innermost last."""


def follow_blas_threads(read: Callable[[], int], write: Callable[[int], object]) -> None:
    """Make another library's number of threads follow `blas_threads`, also in a block that runs already.

    ``read`` returns the library's number, ``write`` sets it. After the outermost block it is what it was before.
    """
    _followers.append(_Follower(read, write))
    if _running:
        write(_running[-1])


def use_threads(count: int) -> None:
    """Give the libraries that follow `blas_threads` this many threads from now on, where no block says otherwise: for
    tasks, whose BLAS has its number from the environment. (torch would take MKL's idea of it, which is less.)"""
    if not _running:
        _running.append(count)
        for follower in _followers:
            follower.write(count)


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Run the block with this many threads of BLAS, and of the libraries that follow it: how a product is cut decides
    its last bits."""
    from threadpoolctl import threadpool_limits  # late: a scan of the loaded libraries, 5 ms

    with threadpool_limits(limits=count, user_api="blas"):
        if not _running:  # else a block around this one has done it
            for follower in _followers:
                follower.own = follower.read()
        _running.append(count)
        for follower in _followers:
            follower.write(count)
        try:
            yield
        finally:
            _running.pop()
            for follower in _followers:
                follower.write(_running[-1] if _running else follower.own)
