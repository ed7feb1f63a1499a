"""A watch that fails is found out: nobody waits for ever on what it no longer sees."""

from __future__ import annotations

import threading

import pytest

from nnlib.collective.communicator import PeerLostError
from nnlib.collective.network import LOOPBACK
from nnlib.collective.rendezvous import Meeting, Member
from nnlib.collective.zeromq import Endpoint, connect


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_waits_without_a_watch_is_told_and_can_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints = [Endpoint([LOOPBACK], None) for _ in range(2)]
    members = tuple(Member(worker, f"i{worker}", "here", tuple(each.routes)) for worker, each in enumerate(endpoints))
    first, second = (
        connect(each, Meeting("j", 1, worker, members), timeout_seconds=600.0) for worker, each in enumerate(endpoints)
    )

    def failing(seconds: float) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(first._watch, "_step", failing)  # its next heartbeat
    with pytest.raises(PeerLostError, match="the watch over it has failed: out of order"):
        first.receive({1})
    for each in (first, second):
        closing = threading.Thread(target=each.close, daemon=True)
        closing.start()
        closing.join(60.0)
        assert not closing.is_alive()
