"""The pool of local tasks, on small scripts: attempts, limits, what is committed, what is said, what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import alive
from product import ROOT

from jobs.runners.local.attempt import Task
from jobs.runners.local.chaos import Chaos
from jobs.runners.local.task_pool import TaskPool
from nnlib.core.errors import JobError

HEAD = """
import os, pathlib, signal, sys, time
from jobs.runners.output_trailer import SealedStream
output = SealedStream(sys.stdout.buffer)
shared = pathlib.Path(sys.argv[1])
def write(text):
    output.write(text.encode())
def attempts():  # how many there have been, this one included
    with open(shared / "attempts", "a+") as file:
        file.write("x")
        return file.tell()
"""


def task(tmp_path: Path, body: str, number: int = 0, *, end: str = "output.seal()") -> Task:
    """A task whose process runs ``body``; ``tmp_path / "shared"`` is its first argument."""
    shared, directory = tmp_path / "shared", tmp_path / f"task-{number}" / "wd"
    shared.mkdir(parents=True, exist_ok=True)
    directory.mkdir(parents=True)
    script, given = directory / "script.py", directory.parent / "input"
    script.write_text(HEAD + body + "\n" + end + "\n")
    given.write_text("a line\n")
    return Task(
        job="train 0",
        round=0,
        kind="worker",
        number=number,
        arguments=[sys.executable, "script.py", str(shared)],
        directory=directory,
        environment={**os.environ, "PYTHONPATH": str(ROOT)},
        input=given,
        output=directory.parent / "output",
    )


class Told:
    """What a pool tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.events: list[Any] = []

    def pool(self, start: Callable[..., Any] = subprocess.Popen, **options: Any) -> TaskPool:
        return TaskPool(start, warn=self.notes.append, record=self.events.append, **options)


def test_a_task_reads_its_input_and_gives_its_output(tmp_path: Path) -> None:
    told, work = Told(), task(tmp_path, "write(sys.stdin.read() * 2)")
    told.pool().run(work)
    assert work.output.read_text() == "a line\n" * 2
    assert told.notes == [] and told.events == []


def test_a_failed_attempt_leaves_nothing_in_the_output(tmp_path: Path) -> None:
    body = """
write("of attempt %d\\n" % (number := attempts()))
if number < 3:
    sys.stdout.buffer.flush()
    sys.exit("not yet")
"""
    told, work = Told(), task(tmp_path, body)
    told.pool(retries=3).run(work)
    assert work.output.read_text() == "of attempt 3\n"
    assert told.notes == [f"worker 0, round 0: attempt {n} of 4 ended with code 1; trying again" for n in (1, 2)]
    assert [event.attempt for event in told.events] == [1, 2]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit(3)", "ended with code 3; it wrote no message"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("raise ValueError('of a kind')", "ended with code 1; its last lines:\n.*ValueError: of a kind"),
        ("os._exit(0)", "left an output that is not whole"),
        ("write('a'); output.seal(); write('b'); sys.stdout.buffer.flush(); os._exit(0)", "not whole"),
    ],
)
def test_a_task_that_always_fails_is_named(tmp_path: Path, body: str, words: str) -> None:
    work = task(tmp_path, "attempts()\n" + body, 7)
    with pytest.raises(JobError, match=rf"(?s)^worker 7, round 0: failed for good: attempt 3 of 3 .*{words}") as caught:
        Told().pool(retries=2).run(work)
    assert caught.value.exit_code == 4
    assert (tmp_path / "shared" / "attempts").read_text() == "xxx"
    assert not work.output.exists()


def test_without_retries_there_is_one_attempt(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="its only attempt ended with code 1"):
        Told().pool().run(task(tmp_path, "attempts(); sys.exit(1)"))
    assert (tmp_path / "shared" / "attempts").read_text() == "x"


def test_a_talkative_failure_is_cut_to_its_last_lines(tmp_path: Path) -> None:
    body = "sys.stderr.write('early\\n' * 10**5 + 'long' * 10**3 + '\\nthe reason\\n'); sys.exit(1)"
    with pytest.raises(JobError) as caught:
        Told().pool().run(task(tmp_path, body))
    text = str(caught.value).splitlines()
    assert text[-1] == "    the reason"
    assert len(text) == 13 and max(map(len, text)) < 250


def test_what_attempts_write_is_kept(tmp_path: Path) -> None:
    """Also of attempts that end well; of those that write nothing there is nothing to keep."""
    kept: list[tuple[str, int, bytes]] = []
    body = "sys.stderr.write('try %d\\n' % (number := attempts())); sys.exit(1) if number < 2 else write('done')"

    def keep(task: Task, number: int, messages: bytes) -> None:
        kept.append((task.name, number, messages))

    Told().pool(retries=1, keep=keep).run(task(tmp_path, body, 4))
    assert kept == [("worker 4", 0, b"try 1\n"), ("worker 4", 1, b"try 2\n")]
    kept.clear()
    (tmp_path / "silent").mkdir()
    Told().pool(keep=keep).run(task(tmp_path / "silent", "write('done')"))
    assert kept == []


def test_a_task_that_hangs_is_killed_and_tried_again(tmp_path: Path) -> None:
    body = "(shared / str(attempts())).write_text(str(os.getpid()))\nif attempts() == 2: time.sleep(600)\nwrite('late')"
    told, work = Told(), task(tmp_path, body)
    told.pool(retries=1, timeout_seconds=3.0).run(work)
    assert work.output.read_text() == "late"
    assert "took longer than 3 seconds (runtime.task_timeout_seconds)" in told.notes[0]
    assert not alive(int((tmp_path / "shared" / "1").read_text()))


def test_a_process_that_cannot_be_started_is_an_attempt(tmp_path: Path) -> None:
    def start(*arguments: Any, **options: Any) -> Any:
        raise OSError(11, "Resource temporarily unavailable")

    told = Told()
    with pytest.raises(JobError, match=r"attempt 2 of 2 could not be started: .*temporarily unavailable"):
        told.pool(start, retries=1).run(task(tmp_path, ""))


def run_all(pool: TaskPool, tasks: list[Task]) -> None:
    pool.run_all(partial(pool.run, work) for work in tasks)


def test_as_many_run_at_once_as_there_are_cores(tmp_path: Path) -> None:
    meet = """
(shared / sys.argv[0].replace("/", "-") ).touch()
(shared / str(os.getpid())).touch()
while len([name for name in os.listdir(shared) if name.isdigit()]) < 2:
    time.sleep(0.01)
"""
    run_all(Told().pool(cores=2), [task(tmp_path, meet, number) for number in range(2)])


@pytest.mark.parametrize("chaos", [None, Chaos(twin=1.0)])
def test_never_more_run_than_there_are_cores(tmp_path: Path, chaos: Chaos | None) -> None:
    body = """
mine = shared / ("running-%d" % os.getpid())
mine.touch()
now = len(list(shared.glob("running-*")))
(shared / ("seen-%d-%d" % (now, os.getpid()))).touch()
time.sleep(0.05)
mine.unlink()
"""
    run_all(Told().pool(cores=2, chaos=chaos), [task(tmp_path, body, number) for number in range(5)])
    seen = [int(path.name.split("-")[1]) for path in (tmp_path / "shared").glob("seen-*")]
    assert len(seen) == (10 if chaos else 5)
    assert max(seen) <= 2


def test_the_first_failure_ends_the_others(tmp_path: Path) -> None:
    sleeper = "(shared / 'sleeper').write_text(str(os.getpid()))\ntime.sleep(600)"
    failing = "while not (shared / 'sleeper').exists(): time.sleep(0.01)\nsys.exit(5)"
    told = Told()
    tasks = [task(tmp_path, sleeper, 0), task(tmp_path, failing, 1), task(tmp_path, "attempts()", 2)]
    with pytest.raises(JobError, match="worker 1"):
        run_all(told.pool(cores=2, retries=1), tasks)
    assert not alive(int((tmp_path / "shared" / "sleeper").read_text()))
    assert not (tmp_path / "shared" / "attempts").exists()  # the one that waited for a core was never begun
    assert all(event.task == "worker 1" for event in told.events)


def test_of_several_failures_the_first_task_is_named(tmp_path: Path) -> None:
    body = "(shared / str(os.getpid())).touch()\nwhile len(os.listdir(shared)) < 3: time.sleep(0.01)\nsys.exit(1)"
    with pytest.raises(JobError, match=r"worker [012], round 0"):
        run_all(Told().pool(cores=3), [task(tmp_path, body, number) for number in range(3)])


def test_a_pool_can_be_used_again_after_a_failure(tmp_path: Path) -> None:
    pool = Told().pool()
    with pytest.raises(JobError):
        run_all(pool, [task(tmp_path, "sys.exit(1)", 0)])
    work = task(tmp_path, "write('well')", 1)
    run_all(pool, [work])
    assert work.output.read_text() == "well"


def test_told_by_one_thread_at_a_time(tmp_path: Path) -> None:
    busy = threading.Lock()

    def note(text: str) -> None:
        assert busy.acquire(blocking=False)
        time.sleep(0.02)
        notes.append(text)
        busy.release()

    notes: list[str] = []
    pool = TaskPool(cores=4, retries=1, warn=note)
    run_all(pool, [task(tmp_path / str(n), "if attempts() == 1: sys.exit(1)", n) for n in range(4)])
    assert len(notes) == 4


def seed_where(chaos: Callable[[int], Chaos], wanted: Callable[[Chaos], bool]) -> Chaos:
    """The first schedule of its kind that does what a test needs."""
    return next(schedule for seed in range(1000) if wanted(schedule := chaos(seed)))


def first(chaos: Chaos, twin: int = 0) -> Any:
    return chaos.faults("train 0", "worker 0", 0, twin, last=False)


@pytest.mark.parametrize(
    ("chaos", "failure"),
    [
        (lambda seed: Chaos(seed, kill=0.5), "was killed on purpose (--chaos)"),
        (lambda seed: Chaos(seed, truncate=0.5), "left an output that is not whole"),
        (lambda seed: Chaos(seed, hang=0.5), "took longer than 3 seconds (runtime.task_timeout_seconds)"),
    ],
)
def test_injected_faults_fail_an_attempt_and_are_told_as_events(
    tmp_path: Path, chaos: Callable[[int], Chaos], failure: str
) -> None:
    told = Told()
    hit = seed_where(chaos, lambda found: first(found).kill or first(found).hang or first(found).cut is not None)
    work = task(tmp_path, "write('1\\n2\\n3\\n')")
    told.pool(retries=1, timeout_seconds=3.0, chaos=hit).run(work)
    assert work.output.read_text() == "1\n2\n3\n"
    assert told.notes == []  # what was asked for is no news
    assert [event.kind for event in told.events] == ["chaos", "attempt"]
    assert told.events[1].failure == failure


def test_a_twin_saves_an_attempt_that_is_killed(tmp_path: Path) -> None:
    chaos = seed_where(
        lambda seed: Chaos(seed, kill=0.5, twin=1.0), lambda found: first(found).kill and not first(found, 1).kill
    )
    work = task(tmp_path, "write('result')")
    told = Told()
    told.pool(cores=2, retries=3, chaos=chaos).run(work)
    assert work.output.read_text() == "result"
    assert {event.attempt for event in told.events} == {1}


@pytest.mark.parametrize("used", ["first", "second"])
def test_one_of_two_twins_is_used(tmp_path: Path, used: str) -> None:
    chaos = seed_where(
        lambda seed: Chaos(seed, twin=1.0), lambda found: found.twin_of("train 0", "worker 0", 0) == used
    )
    body = """write('a\\tsame\\nk\\t00000003\\t{"loss":NaN,"seconds":%d}\\n' % os.getpid())"""  # which may differ
    work = task(tmp_path, body)
    Told().pool(chaos=chaos).run(work)
    assert work.output.read_text().startswith('a\tsame\nk\t00000003\t{"loss":NaN,')
    left = {path.parent.name for path in work.directory.parent.glob("attempt-*/output")}
    assert left == {"attempt-0-1" if used == "first" else "attempt-0-0"}


@pytest.mark.parametrize(
    "line", ["00000000.00000000\\t%d", "k\\t%d\\t{}", "%d\\t0\\t{}", '0\\t0\\t{"loss":%d}', "0\\n" * 3 + "%d"]
)
def test_twins_that_differ_are_an_error(tmp_path: Path, line: str) -> None:
    work = task(tmp_path, f"write('{line}\\n' % os.getpid())")
    with pytest.raises(JobError, match="run twice, had two results"):
        Told().pool(chaos=Chaos(twin=1.0)).run(work)


def test_reordered_lines_are_the_same_lines(tmp_path: Path) -> None:
    work = task(tmp_path, "write(''.join('%d\\n' % n for n in range(100)))")
    Told().pool(chaos=Chaos(reorder=1.0)).run(work)
    lines = work.output.read_text().splitlines()
    assert lines != sorted(lines, key=int)
    assert sorted(lines, key=int) == [str(number) for number in range(100)]


def test_workers_take_turns_on_the_device_that_they_share(tmp_path: Path) -> None:
    body = """
mine = shared / f"device-{int(pathlib.Path.cwd().parent.name.split('-')[1]) % 2}"
mine.mkdir()  # fails where another worker of the device runs
time.sleep(0.2)
mine.rmdir()
"""
    run_all(Told().pool(cores=4, devices=2), [task(tmp_path, body, number) for number in range(5)])
    meet = """
(shared / f"here-{os.getpid()}").touch()
while len(list(shared.glob("here-*"))) < 2:  # both run at once, or neither ends
    time.sleep(0.01)
"""
    tasks = [task(tmp_path / "two", meet, number) for number in (0, 2)]
    run_all(Told().pool(cores=4, devices=2, workers_per_device=2), tasks)
