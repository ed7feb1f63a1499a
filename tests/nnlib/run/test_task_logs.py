"""What local workers write is kept in the run directory, bounded, and found again by worker and round."""

from __future__ import annotations

from pathlib import Path

from nnlib.run.task_logs import MOST_BYTES, MOST_OF_ATTEMPT, TaskLogs, parts_of, read_task_log
from nnlib.storage import LocalStorage


def run_directory(path: Path) -> LocalStorage:
    (path / "spec.json").write_text("{}")
    return LocalStorage(path)


def test_messages_are_kept_with_their_titles_and_added_to_earlier_ones(tmp_path: Path) -> None:
    run = run_directory(tmp_path)
    logs = TaskLogs(run)
    logs.add(3, "train 0, attempt 1", b"one\ntwo\n")
    logs.add(3, "train 1, attempt 1", b"three")
    logs.add(2, "train 1, attempt 1", b" \n")
    logs.flush()
    text = "== train 0, attempt 1 ==\none\ntwo\n== train 1, attempt 1 ==\nthree\n"
    assert read_task_log(run, 3) == text
    assert read_task_log(run, 2) == "", "a worker that writes nothing leaves nothing"
    later = TaskLogs(run)
    later.add(3, "train 2, attempt 1", b"four\n")
    later.flush()
    assert read_task_log(run, 3) == f"{text}== train 2, attempt 1 ==\nfour\n"


def test_parts_of_a_job() -> None:
    text = "== train 1, attempt 1 ==\na\n== train 10, attempt 1 ==\nb\n== train 1, attempt 2 ==\nc\n"
    assert parts_of(text, "train 1") == "== train 1, attempt 1 ==\na\n== train 1, attempt 2 ==\nc\n"
    assert parts_of(text, "train 10") == "== train 10, attempt 1 ==\nb\n"
    assert parts_of("cut off\n== train 1, attempt 1 ==\na\n", "train 1") == "== train 1, attempt 1 ==\na\n"
    assert parts_of("", "train 1") == ""


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    run = run_directory(tmp_path)
    logs = TaskLogs(run)
    for number in range(20):
        logs.add(0, f"train {number}, attempt 1", b"x" * (2 * MOST_OF_ATTEMPT) + b"end\n")
    logs.flush()
    text = read_task_log(run, 0)
    assert len(text) == MOST_BYTES
    assert text.endswith("end\n") and "== train 19, attempt 1 ==" in text and "== train 0," not in text


def test_nothing_is_written_where_there_is_no_run(tmp_path: Path) -> None:
    logs = TaskLogs(LocalStorage(tmp_path / "run"))
    logs.add(0, "train 0, attempt 1", b"one\n")
    logs.flush()
    assert not (tmp_path / "run").exists()
