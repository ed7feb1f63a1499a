"""Ends the driver when `nnjobs cancel` asks for it, as Ctrl-C would."""

from __future__ import annotations

import signal
import threading

from nnlib.core.interrupts import WANTED, interrupt
from nnlib.run.cancel_request import CancelRequest, read_request
from nnlib.storage import Storage


class Cancellation:
    """Looks for a request to end the driver with a lease, and interrupts the main thread once.

    Where no signal can interrupt it (the driver runs in another thread, or the shell has all of them ignored),
    `require_none` ends the run between two rounds.
    """

    def __init__(self, run: Storage, lease: str) -> None:
        """Called in the driver's thread. ``run`` is the run directory, ``lease`` the file of the driver's lease."""
        self._run, self._lease = run, lease
        self._signal = _interrupting_signal()
        self.request: CancelRequest | None = None
        """The request that was found."""
        self.is_closed = False
        """Whether the driver is ending by itself: nothing interrupts it any more."""

    def check(self) -> None:
        """Look for a request; called from another thread. Raises `StorageError`; the next call makes up for it."""
        if self.request is not None:
            return
        self.request = read_request(self._run, self._lease)
        if self.request is not None and self._signal is not None and not self.is_closed:
            # To the thread, not the process: it wakes a call that waits for a job's client.
            signal.pthread_kill(threading.main_thread().ident or 0, self._signal)

    def require_none(self) -> None:
        """Raise `KeyboardInterrupt` if a request was found."""
        if self.request is not None:
            raise KeyboardInterrupt


def _interrupting_signal() -> signal.Signals | None:
    """The signal that raises `KeyboardInterrupt` in this thread; None if none does."""
    if threading.current_thread() is not threading.main_thread():
        return None
    handlers = (interrupt, signal.default_int_handler)
    return next((number for number in WANTED if signal.getsignal(number) in handlers), None)
