"""What lasts is reported once, again when it changes, and again now and then; never as a flood."""

from __future__ import annotations

import os
import threading
import time

import pytest

from nnlib.core import waiting
from nnlib.core.waiting import Wait, WaitReport, current_waits, wait_line, waiting_for, waits_reported_to


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reports(wait: Wait, clock: Clock, seconds: float, step: float = 0.5) -> list[tuple[str, float]]:
    """What is reported in the next ``seconds``, and when, counted from 100."""
    found = []
    end = clock.now + seconds
    while clock.now < end:
        clock.now += step
        if (report := wait.report()) is not None:
            found.append((report.what, clock.now - 100.0))
    return found


def test_a_wait_is_reported_after_5_seconds_and_every_30() -> None:
    clock = Clock()
    wait = Wait("safe mode", clock=clock)
    assert reports(wait, clock, 100.0) == [("safe mode", at) for at in (5.0, 35.0, 65.0, 95.0)]


def test_a_short_wait_is_not_reported() -> None:
    clock = Clock()
    wait = Wait("safe mode", clock=clock)
    assert reports(wait, clock, 4.5) == [] and not wait.was_reported


def test_a_change_is_reported_but_no_more_often_than_every_5_seconds() -> None:
    clock = Clock()
    wait = Wait("0 of 3", clock=clock)
    assert reports(wait, clock, 6.0) == [("0 of 3", 5.0)]
    wait.what = "1 of 3"
    assert reports(wait, clock, 6.0) == [("1 of 3", 10.0)]
    changes = []
    for number in range(40):
        wait.what = f"{number} of 40"
        changes += reports(wait, clock, 0.5)
    assert [at for _, at in changes] == [15.0, 20.0, 25.0, 30.0]


def test_what_begins_anew_counts_anew() -> None:
    clock = Clock()
    wait = Wait("round 1", clock=clock)
    reports(wait, clock, 6.0)
    wait.restart("round 2")
    assert reports(wait, clock, 6.0) == [("round 2", 11.0)]
    assert wait.seconds == 6.0


def test_nothing_to_say_is_not_said() -> None:
    clock = Clock()
    assert reports(Wait("", clock=clock), clock, 60.0) == []


def test_the_lines() -> None:
    assert wait_line(WaitReport("HDFS at m0: safe mode", 35.2)) == "HDFS at m0: safe mode (35 s)"
    assert wait_line(WaitReport("HDFS at m0", 42.0, is_over=True)) == "waited 42 s: HDFS at m0"


def test_waits_of_all_threads_reach_the_innermost_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "CHECK_SECONDS", 0.01)
    outer: list[WaitReport] = []
    inner: list[WaitReport] = []
    reported = threading.Event()

    def listen(report: WaitReport) -> None:
        inner.append(report)
        reported.set()

    def work() -> None:
        with waiting_for("the name node", reports_end=True):
            assert reported.wait(10.0)
            assert [wait.what for wait in current_waits(longer_than=0.05)] == ["the name node"]

    with waits_reported_to(outer.append), waits_reported_to(listen):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert outer == [] and current_waits(longer_than=0.0) == []
    assert [(report.what, report.is_over) for report in inner] == [("the name node", False), ("the name node", True)]


def test_an_end_that_needs_no_line_has_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "CHECK_SECONDS", 0.01)
    seen: list[WaitReport] = []
    with waits_reported_to(seen.append), waiting_for("train 3"):
        while not seen:
            time.sleep(0.01)
    assert [(report.what, report.is_over) for report in seen] == [("train 3", False), ("", True)]


def test_a_forked_process_begins_without_waits() -> None:
    with waits_reported_to(lambda report: None), waiting_for("the parent's"):
        process = os.fork()
        if process == 0:
            os._exit(0 if not current_waits(longer_than=-1.0) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
