"""Workers of one process in turn: who goes next, and how it ends when one fails or all wait."""

from __future__ import annotations

import threading

import pytest

from nnlib.collective.communicator import Communicator
from nnlib.collective.in_process import InProcessGroup
from nnlib.core.errors import JobError


def test_each_runs_until_it_waits_and_then_the_next_in_the_circle() -> None:
    """Of three workers that exchange twice each is woken once for an exchange, when all others have sent."""
    order: list[tuple[int, int]] = []

    def work(group: Communicator) -> None:
        for step in range(2):
            order.append((step, group.worker))
            got = group.exchange([[bytes([step, group.worker, peer])] for peer in range(group.workers)])
            assert [bytes(frames[0]) for frames in got] == [bytes([step, peer, group.worker]) for peer in range(3)]

    InProcessGroup(3).run(work)
    assert order == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 0), (1, 1)]


def test_the_first_error_ends_all() -> None:
    ended = []

    def work(group: Communicator) -> None:
        try:
            if group.worker == 1:
                raise JobError("worker 1 has failed")
            group.receive({1})
        finally:
            ended.append(group.worker)

    before = threading.active_count()
    with pytest.raises(JobError, match="worker 1 has failed"):
        InProcessGroup(4).run(work)
    assert sorted(ended) == [0, 1]  # those behind it did not begin
    assert threading.active_count() == before


@pytest.mark.parametrize("gone", [None, 0, 2], ids=["all wait", "the first has left", "the last has left"])
def test_waiting_for_what_nobody_sends_is_an_error_not_a_hang(gone: int | None) -> None:
    def work(group: Communicator) -> None:
        if group.worker != gone:
            group.receive(set(range(group.workers)) - {group.worker})

    with pytest.raises(JobError, match="wait for messages that nobody sends"):
        InProcessGroup(3).run(work)
