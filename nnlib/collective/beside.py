"""Work that goes on beside its caller's, in a thread: apart, for few need it and its imports take their time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from nnlib.collective.communicator import Result


def in_thread(work: Callable[[], Result]) -> Future[Result]:
    """Begin work in a thread of its own, which ends with it."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="exchange")
    begun = executor.submit(work)
    executor.shutdown(wait=False)
    return begun
