"""How generations form: complete, replaced, superseded, too few, too often; and in any order of events."""

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
from nnlib.collective.network import LOOPBACK, host_addresses
from nnlib.collective.rendezvous import GangError, Generation, Rendezvous, Route
from nnlib.core.errors import JobError, MismatchError
from nnlib.storage import LocalStorage


def task(path: Path, worker: int, workers: int, **options: Any) -> Rendezvous:
    settings = {"job": "j", "timeout_seconds": 20.0, **options}
    return Rendezvous(LocalStorage(path), worker=worker, workers=workers, **settings)


def routes(worker: int) -> list[Route]:
    return [Route(LOOPBACK, 1000 + worker, 2000 + worker)]


def join_all(tasks: list[Rendezvous]) -> list[Any]:
    """The generation that each task joins, or the error that it raises."""
    results: list[Any] = [None] * len(tasks)

    def join(number: int) -> None:
        try:
            results[number] = tasks[number].join_generation(routes(tasks[number].worker))
        except (JobError, MismatchError) as error:
            results[number] = error

    threads = [threading.Thread(target=join, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_complete_generation_knows_all_members(tmp_path: Path) -> None:
    tasks = [task(tmp_path, worker, 3) for worker in range(3)]
    for worker, generation in enumerate(join_all(tasks)):
        assert (generation.number, generation.worker, generation.job) == (1, worker, "j")
        assert [member.worker for member in generation.members] == [0, 1, 2]
        assert [member.incarnation for member in generation.members] == [each.incarnation for each in tasks]
        assert [list(member.routes) for member in generation.members] == [routes(each) for each in range(3)]
    assert all(each.workers_ahead() == set() for each in tasks)


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
    for error in join_all(tasks):
        assert isinstance(error, GangError)
        assert error.exit_code == 4
        assert (error.present, error.missing) == ([0, 1, 2, 5, 7], [3, 4, 6])
        assert "5 of 8 workers came within 0 s: 0-2, 5, 7; missing 3-4, 6" in str(error)
        assert "fewer slots than workers" in str(error)


def test_a_replacement_opens_the_next_generation_and_survivors_follow(tmp_path: Path) -> None:
    old = [task(tmp_path, worker, 3) for worker in range(3)]
    join_all(old)
    anew = task(tmp_path, 1, 3)
    found: list[Generation] = []
    replacing = threading.Thread(target=lambda: found.append(anew.join_generation(routes(1))))
    replacing.start()
    while not old[0].workers_ahead():
        time.sleep(0.01)
    assert old[0].workers_ahead() == {1}
    survivors = join_all([old[0], old[2]])
    replacing.join()
    for generation in [*survivors, *found]:
        assert generation.number == 2
        assert generation.members[1].incarnation == anew.incarnation
    with pytest.raises(SupersededError, match="another task has replaced this one as worker 1"):
        old[1].join_generation(routes(1))
    with pytest.raises(SupersededError):
        old[1].workers_ahead()


def test_survivors_open_the_next_generation_and_the_replacement_joins(tmp_path: Path) -> None:
    old = [task(tmp_path, worker, 3) for worker in range(3)]
    join_all(old)
    anew = task(tmp_path, 1, 3)
    waiting = threading.Event()

    def sleep(seconds: float) -> None:
        waiting.set()
        time.sleep(seconds)

    old[0]._sleep = sleep
    found: list[Any] = []
    surviving = threading.Thread(target=lambda: found.extend(join_all([old[0], old[2]])))
    surviving.start()
    waiting.wait(10)
    found.append(anew.join_generation(routes(1)))
    surviving.join()
    assert [generation.number for generation in found] == [2, 2, 2]


def test_of_two_tasks_of_one_worker_the_later_stays(tmp_path: Path) -> None:
    first, second, other = task(tmp_path, 0, 2), task(tmp_path, 0, 2), task(tmp_path, 1, 2)
    found: list[Any] = []

    def while_first_waits(_: float) -> None:
        found.append(second.join_generation(routes(0)))

    def while_second_waits(_: float) -> None:
        if not found:  # it is alone in a generation, which the other one joins
            found.append(other.join_generation(routes(1)))

    first._sleep, second._sleep = while_first_waits, while_second_waits
    with pytest.raises(SupersededError, match="worker 0 in generation 2"):
        first.join_generation(routes(0))
    assert [generation.number for generation in found] == [2, 2]
    assert found[0].members[0].incarnation == second.incarnation


@pytest.mark.parametrize(
    "change", [{"job": "k"}, {"workers": 3}, {"worker": 1}, {"format_version": 9}, {"routes": 1}, {"x": 1}]
)
def test_a_strange_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    other = task(tmp_path, 1, 2, timeout_seconds=0.01)
    with pytest.raises(GangError):
        other.join_generation(routes(1))
    path = tmp_path / "generation-000001-worker-000001.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "worker": 1, **({"worker": 0} if "worker" in change else change)}))
    with pytest.raises(MismatchError, match=r"generation-000001-worker-000001\.json"):
        task(tmp_path, 0, 2).join_generation(routes(0))


def test_other_files_do_not_matter(tmp_path: Path) -> None:
    for name in ("key.json", "generation-000009-worker-000007.json", "generation-1-worker-0.json"):
        (tmp_path / name).write_text("?")
    assert task(tmp_path, 0, 1).join_generation(routes(0)).number == 1


def test_generations_are_bounded(tmp_path: Path) -> None:
    for generation in (1, 2, 3):
        assert task(tmp_path, 0, 1, max_generations=3).join_generation(routes(0)).number == generation
    with pytest.raises(JobError, match="had to be formed 3 times"):
        task(tmp_path, 0, 1, max_generations=3).join_generation(routes(0))


@pytest.mark.parametrize("seed", range(6))
def test_the_newest_tasks_form_a_generation_whatever_dies(tmp_path: Path, seed: int) -> None:
    """Tasks die at random moments, before, while and after a generation forms; their replacements come late or at once;
    some of the dead are only asleep and come back. In the end the newest tasks are in one generation, and every sleeper
    that wakes learns that it was replaced."""
    chance = random.Random(seed)
    workers = chance.randint(2, 5)
    over = threading.Event()
    newest: dict[int, Rendezvous] = {}
    complete: dict[int, Generation] = {}
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

        each = task(tmp_path, worker, workers, max_generations=1000, sleep=sleep)
        with lock:
            newest[worker] = each
        try:
            while not over.is_set():
                joined = each.join_generation(routes(worker))
                with lock:
                    complete[worker] = joined
                while not over.is_set() and not each.workers_ahead():
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
        for worker in dead:  # those that have died meanwhile are replaced for good
            threads.append(threading.Thread(target=start, args=(worker, -1)))
            threads[-1].start()
            while newest[worker] in sleepers:
                time.sleep(0.001)
        with lock:
            if not dead and len(complete) == workers and len({each.number for each in complete.values()}) == 1:
                incarnations = [newest[worker].incarnation for worker in range(workers)]
                if all([member.incarnation for member in each.members] == incarnations for each in complete.values()):
                    break
        time.sleep(0.01)
    else:
        pytest.fail("no generation of the newest tasks formed")
    over.set()
    for thread in threads:
        thread.join()
    assert not failures
    for each in sleepers:
        if each._joined:  # it had posted before it fell asleep
            each._sleep = time.sleep
            with pytest.raises(SupersededError):
                each.join_generation(routes(each.worker))


def test_addresses_lead_to_where_they_should() -> None:
    assert host_addresses([LOOPBACK])[0] == LOOPBACK
    assert host_addresses(["no-such-host.invalid"])


def test_a_replacement_is_waited_for_longer_than_the_first_workers(tmp_path: Path) -> None:
    """By the time that a cluster may take to notice that a machine is lost."""
    waiting = {"timeout_seconds": 0.2, "replacement_seconds": 0.3}
    with pytest.raises(GangError) as alone:
        task(tmp_path / "first", 0, 2, **waiting).join_generation(routes(0))
    assert (alone.value.missing, alone.value.seconds) == ([1], 0.2)
    first, second = (task(tmp_path / "again", worker, 2, **waiting) for worker in (0, 1))
    join_all([first, second])
    began = time.monotonic()
    with pytest.raises(GangError) as left:
        first.join_generation(routes(0))
    assert (left.value.missing, left.value.seconds) == ([1], 0.5)
    assert time.monotonic() - began >= 0.5
