"""What a task on a cluster tells Hadoop: signs of life, and which worker its log is about."""

from __future__ import annotations

import io
import threading
from typing import Any

from jobs.runners.streaming_reporter import Reporter, status
from nnlib.core.liveness import HEARTBEAT, heartbeat, report_activity


class PlayedJob:
    """What the reporter uses of mrjob's job."""

    def __init__(self) -> None:
        self.stderr = io.BytesIO()
        self.statuses: list[str] = []
        self.counters: list[tuple[str, str, int]] = []
        self.told = threading.Event()

    def set_status(self, text: str) -> None:
        self.statuses.append(text)
        self.told.set()

    def increment_counter(self, group: str, name: str, amount: int) -> None:
        self.counters.append((group, name, amount))


def test_signs_of_life_come_only_while_the_task_gets_on() -> None:
    job: Any = PlayedJob()
    with Reporter(job, every_seconds=0.01) as reporter:
        report_activity(phase="train", round=3, epoch=7, loss=0.12345)
        assert job.told.wait(30)
        job.told.clear()
        first = len(job.statuses)
        assert not reporter._done.wait(0.2)
        assert len(job.statuses) == first  # it hangs: nothing more is said
        heartbeat()
        assert job.told.wait(30)
    assert "round 3 epoch 7 loss 0.1235" in job.statuses[0] or "loss 0.1234" in job.statuses[0]
    assert HEARTBEAT.count


def test_a_status_in_words() -> None:
    assert status({"phase": "train", "round": 3, "epoch": 7, "loss": 0.123}) == "train: round 3 epoch 7 loss 0.123"
    assert status({}) == "reading"
