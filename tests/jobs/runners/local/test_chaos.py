"""Chaos: how it is asked for, that a schedule is a pure function, and that no schedule changes a run's result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver_experiment import CLASSES, blobs, config
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import deterministic_files
from shards import write_dataset

from jobs.__main__ import main
from jobs.driver import driver
from jobs.runners.local.chaos import LONGEST_DELAY, Chaos, cut, shuffle_lines
from nnlib.core.errors import UsageError

ISSUED = "seed=1,kill=0.2,twin=0.2,delay=0.1,reorder=1,truncate=0.05"


def violent(seed: int) -> str:
    """A schedule of growing violence: the last ones harm nearly every attempt that may be harmed."""
    p = 0.2 + 0.035 * min(seed, 20)
    return f"seed={seed},kill={p:.3f},twin={p:.3f},delay=0.2,reorder=1,truncate={p / 2:.3f}"


SCHEDULES = [
    ISSUED,
    violent(10),
    "seed=3,truncate=0.9,twin=0.5,reorder=0.5",
    *(pytest.param(violent(seed), marks=pytest.mark.full) for seed in (*range(4, 10), *range(11, 22))),
]
assert len(SCHEDULES) == 20


def test_what_is_asked_for() -> None:
    assert Chaos.parse(ISSUED) == Chaos(1, kill=0.2, twin=0.2, delay=0.1, reorder=1.0, truncate=0.05)
    assert Chaos.parse(" kill = 1 , worker=3 ") == Chaos(kill=1.0, worker=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not key=value"),
        ("kill", "'kill' is not key=value"),
        ("kill=0.1,", "'' is not key=value"),
        ("kil=0.1", "there is no 'kil'; did you mean kill"),
        ("explode=1", "there is no 'explode'; there are seed, kill, hang, twin, delay, reorder, truncate, worker"),
        ("kill=0.1,kill=0.2", "kill appears twice"),
        ("kill=1.1", "kill is '1.1', but a probability lies between 0 and 1"),
        ("twin=-0.1", "twin is '-0.1'"),
        ("delay=nan", "delay is 'nan'"),
        ("truncate=often", "truncate is 'often'"),
        ("seed=-1", "seed is '-1', but must be a whole number"),
        ("seed=1.5", "seed is '1.5'"),
        ("seed=", "seed is ''"),
        ("worker=²", "worker is '²'"),
        ("seed=" + "9" * 5000, "must be a whole number"),
    ],
)
def test_what_cannot_be_asked_for(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Chaos.parse(text)
    assert words in caught.value.message and caught.value.exit_code == 2


probabilities = st.floats(0.0, 1.0)
places = st.tuples(st.sampled_from(["train 0", "train 1", "score 2"]), st.sampled_from(["worker 0", "reducer 0"]))


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**9), probabilities, probabilities, places, st.integers(0, 5), st.integers(0, 1))
def test_faults_depend_on_nothing_but_their_place(
    seed: int, kill: float, other: float, place: tuple[str, str], attempt: int, twin: int
) -> None:
    chaos = Chaos(seed, kill=kill, hang=other, truncate=other, delay=other, reorder=other)
    found = chaos.faults(*place, attempt, twin, last=False)
    assert found == Chaos(**vars(chaos)).faults(*place, attempt, twin, last=False)
    # The probability of one fault does not move the others.
    alone = Chaos(seed, kill=kill).faults(*place, attempt, twin, last=False)
    assert (alone.kill, alone.moment) == (found.kill, found.moment)
    assert 0.0 <= found.delay < LONGEST_DELAY and 0.0 <= found.moment < 1.0
    assert found.cut is None or 0.0 <= found.cut < 1.0
    # A task's last attempt is left alone.
    last = chaos.faults(*place, attempt, twin, last=True)
    assert (last.kill, last.hang, last.cut is not None) == (kill == 1.0, other == 1.0, other == 1.0)


def test_faults_are_as_frequent_as_asked_and_differ_from_place_to_place() -> None:
    chaos = Chaos(7, kill=0.2, truncate=0.5, twin=0.3)
    places = [(f"train {round_}", f"worker {worker}") for round_ in range(50) for worker in range(40)]
    faults = [chaos.faults(*place, 0, 0, last=False) for place in places]
    assert sum(found.kill for found in faults) == pytest.approx(400, abs=60)  # 3 standard deviations
    assert sum(found.cut is not None for found in faults) == pytest.approx(1000, abs=70)
    assert sum(chaos.twin_of(*place, 0) is not None for place in places) == pytest.approx(600, abs=65)
    assert len({found.moment for found in faults}) == len(places)
    assert chaos.faults(*places[0], 0, 0, last=False) != chaos.faults(*places[0], 1, 0, last=False)
    assert chaos.faults(*places[0], 0, 0, last=False) != chaos.faults(*places[0], 0, 1, last=False)


def test_faults_may_be_limited_to_one_worker() -> None:
    chaos = Chaos(kill=1.0, twin=1.0, reorder=1.0, worker=2)
    hit = [
        task
        for task in ("worker 1", "worker 2", "worker 22", "reducer 2")
        if chaos.faults("a", task, 0, 0, last=False).kill
    ]
    assert hit == ["worker 2"]
    assert chaos.twin_of("a", "worker 2", 0) is not None and chaos.twin_of("a", "worker 1", 0) is None
    assert chaos.order_of_outputs("a", 9) == list(range(9))


def test_outputs_are_read_in_another_order() -> None:
    orders = {tuple(Chaos(seed, reorder=1.0).order_of_outputs("train 0", 5)) for seed in range(50)}
    assert len(orders) > 20 and all(sorted(order) == list(range(5)) for order in orders)
    assert Chaos(1).order_of_outputs("train 0", 5) == list(range(5))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=9).map(lambda text: text.replace(b"\n", b"")), min_size=1), st.floats(0, 0.9999999))
def test_a_cut_takes_the_end_and_never_nothing(tmp_path_factory: Any, lines: list[bytes], fraction: float) -> None:
    path, data = tmp_path_factory.getbasetemp() / "output", b"".join(line + b"\n" for line in lines)
    for at_line in (False, True):
        path.write_bytes(data)
        cut(path, fraction, at_line=at_line)
        left = path.read_bytes()
        assert len(left) < len(data) and data.startswith(left)
        assert not at_line or left == b"" or left.endswith(b"\n")


def test_shuffling_keeps_every_line(tmp_path: Path) -> None:
    path, lines = tmp_path / "output", [b"%d\r\x0b\t\n" % number for number in range(50)]
    path.write_bytes(b"".join(lines))
    shuffle_lines(path, 3)
    with path.open("rb") as file:
        found = list(file)
    assert found != lines and sorted(found) == sorted(lines)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / "blobs"
    write_dataset(where, *blobs(400), shards=8, row_group_rows=16, classes=CLASSES)
    return str(where)


# Two blocks of parameters, so two slices; scaling is a job of its own; two trials in every job.
EXPERIMENT: dict[str, Any] = {
    "model__hidden": [300, 300],
    "reducers": 3,
    "sync__slice_elements": 1,
    "data__scale": "standard",
    "split__seeds": [0, 1],
    "train__epochs": 4,
    "runtime__runner": "local",
    "runtime__task_timeout_seconds": 120.0,
}


@pytest.fixture(scope="module")
def undisturbed(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    driver.train(config(dataset, run, **EXPERIMENT))
    return deterministic_files(run)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_schedule_changes_a_bit(dataset: str, tmp_path: Path, undisturbed: dict[str, str], schedule: str) -> None:
    run = tmp_path / "run"
    driver.train(config(dataset, run, **EXPERIMENT), chaos=Chaos.parse(schedule))
    assert deterministic_files(run) == undisturbed
    assert events(run, "chaos")  # it did happen


def test_a_schedule_can_be_repeated(dataset: str, tmp_path: Path) -> None:
    told = []
    for name in ("a", "b"):
        small = config(dataset, tmp_path / name, train__epochs=2, runtime__runner="local")
        driver.train(small, chaos=Chaos.parse("seed=5,kill=0.5,twin=0.3,truncate=0.3,reorder=0.5"))
        facts = events(tmp_path / name, "chaos") + events(tmp_path / name, "attempt")
        told.append(sorted(json.dumps({**fact, "time": None}, sort_keys=True) for fact in facts))
    assert told[0] == told[1]
    assert len(told[0]) > 10


def test_a_run_whose_workers_hang_comes_through(dataset: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {"train__epochs": 2, "workers": 2, "runtime__runner": "local"}
    driver.train(config(dataset, tmp_path / "plain", **small))
    # Of few tasks, so that the limit's seconds are few; it is long enough for any that does not hang.
    hanging = next(chaos for seed in range(1000) if (chaos := Chaos(seed, hang=0.2)) and _hangs(chaos) == ["worker 1"])
    driver.train(config(dataset, tmp_path / "run", runtime__task_timeout_seconds=5.0, **small), chaos=hanging)
    assert deterministic_files(tmp_path / "run") == deterministic_files(tmp_path / "plain")
    assert [fact["failure"] for fact in events(tmp_path / "run", "attempt")] == [
        "took longer than 5 seconds (runtime.task_timeout_seconds)"
    ]


def _hangs(chaos: Chaos) -> list[str]:
    """Tasks whose first attempt hangs in a run of one round, 2 workers and as many reducers, and not its second."""
    places = [(job, f"{kind} {n}") for job in ("train 0", "score 1") for kind in ("worker", "reducer") for n in (0, 1)]
    hung = [(job, task) for job, task in places if chaos.faults(job, task, 0, 0, last=False).hang]
    return [task for job, task in hung if not chaos.faults(job, task, 1, 0, last=False).hang]


@pytest.fixture
def experiment(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a small configuration, for the command."""
    monkeypatch.chdir(tmp_path)
    values = config(dataset, None, train__epochs=4).model_dump(mode="json", exclude_unset=True, exclude={"run_dir"})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    return "c.yaml"


def test_the_command_tells_what_was_injected(experiment: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", experiment, "--run-dir", "plain", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    arguments = ["train", experiment, "-r", "local", "--run-dir", "run", "--json", "--chaos", violent(10)]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["model_sha256"] == plain["model_sha256"]
    assert "chaos: of the attempts of tasks, " in told.err and "; every task came through" in told.err
    assert "warning" not in told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chaos", "kill=0.1"], "--chaos needs tasks that are processes; the inline runner has none to kill"),
        (["-r", "local", "--chaos", "kil=0.1"], "did you mean kill"),
        (["-r", "local", "--chaos", "hang=0.1"], "would hang forever"),
        (["-r", "local", "--chaos", "kill=0.1,worker=4"], "there is no worker 4, only 0 to 3"),
    ],
)
def test_the_command_refuses_what_cannot_be(
    experiment: str, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["train", experiment, "--run-dir", "run", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_worker_that_always_fails_ends_the_run_on_one_screen(
    experiment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And when that is repaired, the run goes on to the bits of one that was never disturbed."""
    local = ["train", experiment, "-r", "local", "--run-dir"]
    assert main([*local, "run", "--chaos", "kill=1,worker=2", "--set", "runtime.retries=1"]) == 4
    error = capsys.readouterr().err
    screen = error[error.index("nnjobs: ") :].splitlines()
    assert screen[0] == (
        "nnjobs: worker 2, round 0, shards part-00002.parquet, part-00006.parquet: failed for good: attempt 2 of 2 was "
        "killed on purpose (--chaos); it wrote no message"
    )
    assert screen[1:] == ["  what to do: repair that, then: nnjobs train --resume --run-dir run"]
    assert main(["train", "--resume", "--run-dir", "run"]) == 0
    assert main([*local, "plain"]) == 0
    assert deterministic_files(Path("run")) == deterministic_files(Path("plain"))
