"""A worker whose heartbeat monitor fails raises an error instead of waiting for ever."""

from __future__ import annotations

import threading

import pytest

from nnlib.collective.communicator import PeerLostError
from nnlib.collective.endpoint import Endpoint
from nnlib.collective.network import LOOPBACK
from nnlib.collective.rendezvous import Generation, Member
from nnlib.collective.zeromq import connect


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_monitor_that_fails_interrupts_its_worker_which_can_still_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints = [Endpoint([LOOPBACK], None) for _ in range(2)]
    members = tuple(Member(worker, f"i{worker}", "here", tuple(each.routes)) for worker, each in enumerate(endpoints))
    first, second = (
        connect(each, Generation("j", 1, worker, members), timeout_seconds=600.0)
        for worker, each in enumerate(endpoints)
    )

    def failing(seconds: float) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(first._monitor, "_step", failing)  # its next heartbeat
    with pytest.raises(PeerLostError, match="the heartbeat monitor has failed: out of order"):
        first.receive({1})
    for each in (first, second):
        closing = threading.Thread(target=each.close, daemon=True)
        closing.start()
        closing.join(60.0)
        assert not closing.is_alive()
