"""How workers meet: complete, replaced, superseded, too few, too often; and in any order of events."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnlib.collective.communicator import SupersededError
from nnlib.collective.network import LOOPBACK, own_addresses
from nnlib.collective.rendezvous import GangError, Meeting, Rendezvous, Route
from nnlib.core.errors import JobError, MismatchError
from nnlib.storage import LocalStorage


def task(path: Path, worker: int, workers: int, **options: Any) -> Rendezvous:
    settings = {"job": "j", "timeout_seconds": 20.0, **options}
    return Rendezvous(LocalStorage(path), worker=worker, workers=workers, **settings)


def routes(worker: int) -> list[Route]:
    return [Route(LOOPBACK, 1000 + worker, 2000 + worker)]


def all_meet(tasks: list[Rendezvous]) -> list[Any]:
    """What each task's meeting gives, or raises."""
    found: list[Any] = [None] * len(tasks)

    def meet(place: int) -> None:
        try:
            found[place] = tasks[place].meet(routes(tasks[place].worker))
        except JobError as error:
            found[place] = error
        except MismatchError as error:
            found[place] = error

    threads = [threading.Thread(target=meet, args=(place,)) for place in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_all_come_and_know_each_other(tmp_path: Path) -> None:
    tasks = [task(tmp_path, worker, 3, facts={"numerics": "x"}) for worker in range(3)]
    meetings = all_meet(tasks)
    for worker, meeting in enumerate(meetings):
        assert (meeting.generation, meeting.worker, meeting.job) == (1, worker, "j")
        assert [member.worker for member in meeting.members] == [0, 1, 2]
        assert [member.incarnation for member in meeting.members] == [each.incarnation for each in tasks]
        assert [list(member.routes) for member in meeting.members] == [routes(each) for each in range(3)]
    assert all(each.newer() == set() for each in tasks)


def test_who_is_missing_is_named(tmp_path: Path) -> None:
    tasks = [task(tmp_path, worker, 8) for worker in (0, 1, 2, 5, 7)]
    gate = threading.Barrier(len(tasks))

    def impatient(each: Rendezvous) -> Callable[[float], None]:
        def sleep(_: float) -> None:
            gate.wait(20)  # all have posted
            each._timeout = 0.0

        return sleep

    for each in tasks:
        each._sleep = impatient(each)
    for error in all_meet(tasks):
        assert isinstance(error, GangError)
        assert error.exit_code == 4
        assert (error.came, error.missing) == ([0, 1, 2, 5, 7], [3, 4, 6])
        assert "5 of 8 workers came within 0 s: 0-2, 5, 7; missing 3-4, 6" in str(error)
        assert "fewer slots than workers" in str(error)


def test_a_replacement_opens_the_next_generation_and_survivors_follow(tmp_path: Path) -> None:
    old = [task(tmp_path, worker, 3) for worker in range(3)]
    all_meet(old)
    anew = task(tmp_path, 1, 3)
    found: list[Meeting] = []
    replacing = threading.Thread(target=lambda: found.append(anew.meet(routes(1))))
    replacing.start()
    while not old[0].newer():
        time.sleep(0.01)
    assert old[0].newer() == {1}
    meetings = all_meet([old[0], old[2]])
    replacing.join()
    for meeting in [*meetings, *found]:
        assert meeting.generation == 2
        assert meeting.members[1].incarnation == anew.incarnation
    with pytest.raises(SupersededError, match="another task has taken the place of worker 1"):
        old[1].meet(routes(1))
    with pytest.raises(SupersededError):
        old[1].newer()


def test_survivors_open_the_next_generation_and_the_replacement_joins(tmp_path: Path) -> None:
    old = [task(tmp_path, worker, 3) for worker in range(3)]
    all_meet(old)
    anew = task(tmp_path, 1, 3)
    waiting = threading.Event()

    def sleep(seconds: float) -> None:
        waiting.set()
        time.sleep(seconds)

    old[0]._sleep = sleep
    found: list[Any] = []
    surviving = threading.Thread(target=lambda: found.extend(all_meet([old[0], old[2]])))
    surviving.start()
    waiting.wait(10)
    found.append(anew.meet(routes(1)))
    surviving.join()
    assert [meeting.generation for meeting in found] == [2, 2, 2]


def test_of_two_tasks_of_one_worker_the_later_takes_the_place(tmp_path: Path) -> None:
    first, second, other = task(tmp_path, 0, 2), task(tmp_path, 0, 2), task(tmp_path, 1, 2)
    found: list[Any] = []

    def while_first_waits(_: float) -> None:
        found.append(second.meet(routes(0)))

    def while_second_waits(_: float) -> None:
        if not found:  # it stands in a generation of its own, which the other finds
            found.append(other.meet(routes(1)))

    first._sleep, second._sleep = while_first_waits, while_second_waits
    with pytest.raises(SupersededError, match="worker 0 in generation 2"):
        first.meet(routes(0))
    assert [meeting.generation for meeting in found] == [2, 2]
    assert found[0].members[0].incarnation == second.incarnation


def test_tasks_that_do_not_belong_together_all_refuse(tmp_path: Path) -> None:
    tasks = [task(tmp_path, worker, 3, facts={"key": "abc", "numerics": "xy"[worker == 2]}) for worker in range(3)]
    found = all_meet(tasks)
    assert len({str(each) for each in found}) == 1
    assert isinstance(found[0], MismatchError)
    assert "numerics of worker 2 on" in str(found[0])


@pytest.mark.parametrize(
    "change", [{"job": "k"}, {"workers": 3}, {"worker": 1}, {"format_version": 9}, {"routes": 1}, {"x": 1}]
)
def test_a_strange_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    other = task(tmp_path, 1, 2, timeout_seconds=0.01)
    with pytest.raises(GangError):
        other.meet(routes(1))
    path = tmp_path / "generation-000001-worker-000001.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "worker": 1, **({"worker": 0} if "worker" in change else change)}))
    with pytest.raises(MismatchError, match=r"generation-000001-worker-000001\.json"):
        task(tmp_path, 0, 2).meet(routes(0))


def test_other_files_do_not_matter(tmp_path: Path) -> None:
    for name in ("key.json", "generation-000009-worker-000007.json", "generation-1-worker-0.json"):
        (tmp_path / name).write_text("?")
    assert task(tmp_path, 0, 1).meet(routes(0)).generation == 1


def test_generations_are_bounded(tmp_path: Path) -> None:
    for generation in (1, 2, 3):
        assert task(tmp_path, 0, 1, most_generations=3).meet(routes(0)).generation == generation
    with pytest.raises(JobError, match="had to be formed 3 times"):
        task(tmp_path, 0, 1, most_generations=3).meet(routes(0))


@pytest.mark.parametrize("seed", range(6))
def test_whatever_dies_when_the_living_meet(tmp_path: Path, seed: int) -> None:
    """Tasks die at random moments, before, in and after meetings; their replacements come late or at once; some of the
    dead are only asleep and come back. In the end the newest tasks stand together in one generation, and every sleeper
    that wakes is told that it was replaced."""
    chance = random.Random(seed)
    workers = chance.randint(2, 5)
    over = threading.Event()
    newest: dict[int, Rendezvous] = {}
    met: dict[int, Meeting] = {}
    sleepers: list[Rendezvous] = []
    failures: list[BaseException] = []
    lock = threading.Lock()

    class DiedError(Exception):
        pass

    def start(worker: int, lives: int) -> None:
        """Runs as a new task of this worker; lives on for so many looks at the storage, for ever if negative."""
        left = [lives]

        def sleep(seconds: float) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise DiedError
            time.sleep(min(seconds, 0.02) * random.random())

        each = task(tmp_path, worker, workers, most_generations=1000, sleep=sleep)
        with lock:
            newest[worker] = each
        try:
            while not over.is_set():
                meeting = each.meet(routes(worker))
                with lock:
                    met[worker] = meeting
                while not over.is_set() and not each.newer():
                    sleep(0.02)
        except DiedError:
            with lock:
                sleepers.append(each)
        except BaseException as error:
            failures.append(error)

    threads = []
    for round_ in range(4):
        last = round_ == 3
        for worker in range(workers) if round_ == 0 else chance.sample(range(workers), chance.randint(1, workers)):
            with lock:
                running = worker in newest and newest[worker] not in sleepers
            if running and round_:
                continue  # a task is replaced when it has died, not before
            threads.append(threading.Thread(target=start, args=(worker, -1 if last else chance.randint(1, 12))))
            threads[-1].start()
        time.sleep(chance.random() * 0.1)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with lock:
            dead = [worker for worker, each in newest.items() if each in sleepers]
        for worker in dead:  # whoever died meanwhile is replaced for good
            threads.append(threading.Thread(target=start, args=(worker, -1)))
            threads[-1].start()
            while newest[worker] in sleepers:
                time.sleep(0.001)
        with lock:
            if not dead and len(met) == workers and len({each.generation for each in met.values()}) == 1:
                incarnations = [newest[worker].incarnation for worker in range(workers)]
                if all([member.incarnation for member in each.members] == incarnations for each in met.values()):
                    break
        time.sleep(0.01)
    else:
        pytest.fail("they did not meet")
    over.set()
    for thread in threads:
        thread.join()
    assert not failures
    for each in sleepers:
        if each._own:  # it had posted before it fell asleep
            each._sleep = time.sleep
            with pytest.raises(SupersededError):
                each.meet(routes(each.worker))


def test_addresses_lead_to_where_they_should() -> None:
    assert own_addresses([LOOPBACK])[0] == LOOPBACK
    assert own_addresses(["no-such-host.invalid"])
