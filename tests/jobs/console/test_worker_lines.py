"""Workers as they are shown."""

from __future__ import annotations

from jobs.console.worker_lines import group_lines, stragglers
from nnlib.core.events import GroupProgress, WorkerProgress


def seen(*waits: float, seconds: float = 10.0) -> GroupProgress:
    return GroupProgress(
        7, seconds, tuple(WorkerProgress(number, 0.25, 1234.5, wait) for number, wait in enumerate(waits))
    )


def test_every_worker_has_a_line() -> None:
    assert group_lines(seen(0.0, 1.0)) == [
        "  worker 0: round 7, loss 0.2500, 1,234 examples/s, waits 0%",
        "  worker 1: round 7, loss 0.2500, 1,234 examples/s, waits 10%",
    ]
    unknown = GroupProgress(1, 0.0, (WorkerProgress(0, None, None, 0.0),))
    assert group_lines(unknown) == ["  worker 0: round 1, loss -, - examples/s, waits -"]


def test_who_keeps_the_others_waiting_is_named() -> None:
    assert [worker.worker for worker in stragglers(seen(6.0, 5.0, 0.5, 7.0))] == [2]
    assert group_lines(seen(6.0, 5.0, 0.5, 7.0))[-1] == "  slowest: worker 2; the others wait for 55% of a round"
    assert [worker.worker for worker in stragglers(seen(9.0, 1.0, 0.5, 7.0, 9.0))] == [2, 1]
    assert stragglers(seen(0.5, 0.4, 0.1, 0.5)) == [], "nobody waits long"
    assert stragglers(seen(0.0)) == [] and stragglers(seen(1.0, 1.0, seconds=0.0)) == []


def test_many_workers_take_two_lines() -> None:
    lines = group_lines(seen(*[5.0] * 99, 0.0))
    assert lines == ["  100 workers, in round 7", "  slowest: worker 99; the others wait for 50% of a round"]
