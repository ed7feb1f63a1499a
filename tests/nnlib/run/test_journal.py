"""A run's journals: lines that grow, and one way to read the events back, whoever asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.experiments import scaling
from nnlib.core.errors import MismatchError, StorageError
from nnlib.evaluation import scores_table
from nnlib.report.collect import Times
from nnlib.report.lost_workers import LostTask, lost_tasks
from nnlib.run.directory import EVENTS, SPEC, RunDirectory
from nnlib.run.journal import Journal, RecordedEvent, last_rounds, read_events
from nnlib.run.run_events import (
    KINDS,
    AttemptFailedEvent,
    FaultEvent,
    JobEvent,
    NodesEvent,
    RoundEvent,
    RunEvent,
    StartEvent,
    WorkerLostEvent,
)
from nnlib.storage import LocalStorage
from nnlib.tracking.points import History

RUNS = Path(__file__).parents[2] / "fixtures/before_rooms/runs"

EVERY_KIND: list[RunEvent] = [
    StartEvent(round=3, runner="local", slots=2, host="here", process=7, uploaded_bytes=9),
    RoundEvent(4, 0.5, {"train": 0.25}, job_seconds=0.375, shuffled_bytes=100),
    RoundEvent(5, 0.5, {"train": 0.25}, exchange_seconds=0.125, shuffled_bytes=100, uploaded_bytes=5),
    NodesEvent([{"host": "a", "cores": 4}]),
    WorkerLostEvent(1, 2, "its task ended"),
    AttemptFailedEvent("train 1", "worker 2", 1, "ended with code 9"),
    FaultEvent("train 1", "worker 2", 1, "kill"),
    JobEvent("train 2", "application_1", True, 3, 0, {"examples": 4}, ["attempt_1"]),
]


def started(round_: int, slots: int = 1) -> dict[str, Any]:
    """The line of a driver that begins after a round."""
    return {"event": "start", "round": round_, "runner": "inline", "slots": slots, "time": 1.0}


def done(round_: int, seconds: float) -> dict[str, Any]:
    """The line of a round that took these seconds, all of them in its job."""
    return {"event": "round", "round": round_, "seconds": seconds, "worker_seconds": {}, "time": 10.0 * seconds}


def run_with(folder: Path, events: list[dict[str, Any]], tail: bytes = b"") -> RunDirectory:
    folder.mkdir(exist_ok=True)
    text = "".join(f"{json.dumps(event)}\n" for event in events).encode() + tail
    (folder / EVENTS).write_bytes(text)
    return RunDirectory(str(folder))


def test_a_journal_grows_and_survives_storage_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "journal_seconds", 1e9)
    store = LocalStorage(tmp_path)
    store.write("log", b"from before\n")
    store.write(SPEC, b"{}")  # without a run there is no journal
    journal = Journal(store, "log")
    journal.line("one")
    journal.line("zwei \u00fc \ud800")
    journal.flush()
    assert store.read("log") == "from before\none\nzwei \u00fc \\ud800\n".encode()

    writes: list[bytes] = []

    def refuse(name: str, data: bytes) -> None:
        writes.append(data)
        raise StorageError("full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", refuse)
        journal.line("three")
        journal.flush()
        assert len(writes) == 1
    journal.flush()  # what could not be written is not lost
    journal.record(NodesEvent([{"path": tmp_path}]))
    journal.flush()
    *_, three, record = store.read("log").decode().splitlines()
    assert three == "three"
    assert json.loads(record)["event"] == "nodes" and json.loads(record)["nodes"] == [{"path": str(tmp_path)}]
    journal.flush()
    assert writes == [writes[0]]


def test_every_kind_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    store.write(SPEC, b"{}")
    journal = Journal(store, EVENTS)
    for event in EVERY_KIND:
        journal.record(event)
    journal.flush()
    recorded = read_events(RunDirectory(str(tmp_path)))
    assert [each.event for each in recorded] == EVERY_KIND
    assert {type(event) for event in EVERY_KIND} == set(KINDS.values())
    assert all(each.time is not None and each.time > 1e9 for each in recorded)
    round_in_rounds_mode = json.loads((tmp_path / EVENTS).read_text().splitlines()[1])
    assert set(round_in_rounds_mode) == {
        *("time", "event", "round", "seconds", "worker_seconds", "job_seconds", "shuffled_bytes", "uploaded_bytes")
    }


@pytest.mark.parametrize("run", ["collective", "regression", "rounds", "sweep"])
def test_events_of_earlier_versions_are_written_again_byte_by_byte(run: str) -> None:
    lines = (RUNS / run / EVENTS).read_text().splitlines()
    recorded = read_events(RunDirectory(str(RUNS / run)))
    again = [json.dumps({"time": each.time, **each.event.to_json()}, sort_keys=True) for each in recorded]
    assert again == lines and len(lines) > 2


def test_a_round_that_was_done_again_counts_as_it_was_committed_last(tmp_path: Path) -> None:
    """Round 2 was deleted and done again, with more tasks at once; of round 3 there is only a record of before."""
    events = [started(0), done(1, 1.0), done(2, 2.0), done(3, 3.0), started(1, slots=4), done(2, 20.0)]
    run = run_with(tmp_path, events)
    rounds = last_rounds(read_events(run))
    assert [(each.event.round, each.event.seconds, each.slots) for each in rounds] == [(1, 1.0, 1), (2, 20.0, 4)]
    assert [each.time for each in rounds] == [10.0, 200.0]
    again = run_with(tmp_path, [*events, done(3, 30.0), done(3, 31.0), started(3)])
    assert [each.event.seconds for each in last_rounds(read_events(again))] == [1.0, 20.0, 31.0]


def test_all_who_read_times_take_the_same_record(tmp_path: Path) -> None:
    events = [started(0), done(1, 1.0), done(2, 2.0), started(1), done(2, 20.0), done(3, 4.0)]
    for event in events:
        event.update({"shuffled_bytes": 8} if event["event"] == "round" else {})
    folder = tmp_path / "run"
    for path in (RUNS / "rounds").rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(RUNS / "rounds")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    run = run_with(folder, events)
    assert scores_table.round_seconds(run) == {0: 0.0, 1: 1.0, 2: 21.0, 3: 25.0}
    assert scaling.round_seconds(run, 6) == 50.0
    times = Times.of(read_events(run))
    assert times is not None and (times.seconds, times.rounds) == (25.0, [1, 2, 3])
    points = [point for point in History(run).recorded(3) if "time/round_seconds" in point.values]
    assert [(point.values["time/round_seconds"], point.time) for point in points] == [
        (1.0, 10.0),
        (20.0, 200.0),
        (4.0, 40.0),
    ]


@pytest.mark.parametrize("tail", [b'{"event": "rou', b"{}", b"\xff", b'{"event": "round", "round": 2}'])
def test_a_torn_last_line_is_skipped_and_not_gone_on_with(tmp_path: Path, tail: bytes) -> None:
    """Also one that is JSON by chance: a line without an end was not written whole."""
    run = run_with(tmp_path, [started(0), done(1, 1.0)], tail)
    assert [each.event.kind for each in read_events(run)] == ["start", "round"]
    run.storage.write(SPEC, b"{}")
    journal = Journal(run.storage, EVENTS)
    journal.record(WorkerLostEvent(0, 1, "gone"))
    journal.flush()
    assert [each.event.kind for each in read_events(run)] == ["start", "round", "lost"]


@pytest.mark.parametrize("line", [b"not JSON", b"[]", b"{}", b'{"event": "round"}', b'{"event": []}', b"[" * 100_000])
def test_any_other_line_that_is_no_event_is_named(tmp_path: Path, line: bytes) -> None:
    run = run_with(tmp_path, [started(0)], line + b"\n" + json.dumps(done(1, 1.0)).encode() + b"\n")
    with pytest.raises(MismatchError, match="line 2 is no event") as caught:
        read_events(run)
    assert caught.value.where["file"] == str(tmp_path / EVENTS)


def test_what_is_not_known_is_passed_over(tmp_path: Path) -> None:
    events = [started(0), {"event": "of a later version"}, {**done(1, 1.0), "colour": "blue"}]
    assert [each.event.kind for each in read_events(run_with(tmp_path, events))] == ["start", "round"]
    (tmp_path / EVENTS).unlink()
    assert read_events(RunDirectory(str(tmp_path))) == [] == last_rounds([])


def test_lost_tasks_are_told_in_words() -> None:
    events = [RecordedEvent(None, event) for event in [EVERY_KIND[4], *EVERY_KIND]]
    assert lost_tasks(events) == [
        LostTask("before round 1 was done", "worker 1", "its task ended; replaced"),
        LostTask("after round 5", "worker 1", "its task ended; replaced"),
        LostTask("round 2", "worker 2", "attempt 1 ended with code 9"),
        LostTask("round 3", "attempt_1", "failed"),
    ]
