"""Overlapped averaging (`sync.overlap`): the rule by hand, and the same bits however a run is run."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_experiment import config, substance
from lost_workers import assert_a_death_changes_nothing
from memory_group import MemoryGroup
from pydantic import ValidationError
from runs import committed, rounds_of

from jobs.driver import driver
from jobs.driver.run_setup import initial_states, prepare
from jobs.driver.verification import verify
from nnlib.aggregation.average import Average, Partial
from nnlib.aggregation.quantization import decode, encode
from nnlib.collective.communicator import Communicator
from nnlib.collective.in_process import InProcessGroup
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError, MismatchError
from nnlib.core.events import ignore
from nnlib.core.layout import ModelState
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.round_length import drained_round
from nnlib.run.round_metrics import RoundMetrics
from nnlib.training.collective_training import train_together
from nnlib.training.contribution import WorkerFailedError
from nnlib.training.local_result import LocalResult, RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.round_batches import RoundBatches
from nnlib.training.worker import LocalWorker
from nnlib.training.worker_round import worker_data
from nnlib.training.worker_trial import WorkerTrial

OVERLAP: dict[str, Any] = {"sync__mode": "collective", "sync__overlap": 1, "sync__overlap_drain": 3}


def overlapped(blobs: str, run: Path, **changes: Any) -> Config:
    fixed: dict[str, Any] = {"train__epochs": 14, "checkpoint__every": 1, "checkpoint__keep": "all"}
    return config(blobs, run, **(OVERLAP | fixed | changes))


class Scripted(LocalWorker):
    """Adds scripted differences instead of training; ``started`` is where it started each round."""

    def __init__(self, *arguments: Any, differences: list[float]) -> None:
        super().__init__(*arguments)
        self.differences = differences
        self.started: list[float] = []

    def train(self, index: int, model: ModelState, round_: int, epochs: range) -> LocalResult:
        self.started.append(float(model.vector[0]))
        trained = model.vector + np.float32(self.differences[round_])
        nothing = Partial(self.number, 1, trained, self.spec.model(self.spec.trials[index]).layout.fingerprint)
        return LocalResult(nothing, (0.0,), self.spec.trials[index].train_rows[self.number], 0)


def test_three_rounds_of_two_workers_by_hand(blobs: str, tmp_path: Path) -> None:
    """From 0, steps of 2, 4, 6 and of 0, -2, 2; the third round is drained.

    round 1: from 0 and 0 to 2 and 0: they contribute 2 and 0, the average is 1
    round 2: from 2 and 0 to 6 and -2, with the average 6 + (1 - 2) = 5 and -2 + (1 - 0) = -1: the average is 2
    round 3: from 5 and -1 to 11 and 1, with the average 11 + (2 - 5) = 8 and 1 + (2 + 1) = 4: the average is 6
    round 4: from 6 and 6 to 8 and 6: the last one
    """
    experiment = overlapped(blobs, tmp_path, workers=2, split__seeds=[0], sync__weighting="equal", train__epochs=8)
    spec, plans = prepare(experiment, ignore)
    states = initial_states(spec)
    states[0].weights[:] = 0.0
    workers = [
        Scripted(spec, plan, differences=steps)
        for plan, steps in zip(plans, ([2.0, 4.0, 6.0, 2.0], [0.0, -2.0, 2.0, 0.0]), strict=True)
    ]
    averages = []

    class Observed:
        def is_commit_due(self, round_: int) -> bool:
            assert round_ in (3, 4), "others cannot be gone on from"
            return False

        def on_round(self, before: Checkpoint, after: Checkpoint, *_: object, **__: object) -> None:
            assert len(set(after.trials[0].weights.tolist())) == 1
            averages.append(float(after.trials[0].weights[0]))

        def finish(self) -> None:
            averages.append(-1.0)

    def take_part(group: Communicator) -> None:
        start = Checkpoint(0, states, RoundMetrics(0))
        train_together(workers[group.worker], group, start, Observed() if group.worker == 0 else None)

    InProcessGroup(2).run(take_part)
    assert [worker.started for worker in workers] == [[0.0, 2.0, 5.0, 6.0], [0.0, 0.0, -1.0, 6.0]]
    assert averages == [1.0, 2.0, 6.0, 7.0, -1.0]


@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_it_does_what_is_said_of_it(blobs: str, tmp_path: Path, precision: str) -> None:
    """A run against a loop of its own, without a group, threads or checkpoints."""
    lossy = {"sync__precision": precision, "sync__error_feedback": True} if precision == "int8" else {}
    experiment = overlapped(blobs, tmp_path / "run", split__seeds=[0], **lossy)
    driver.train(experiment)
    spec, plans = prepare(experiment, ignore)
    (trial,) = spec.trials
    plain = experiment.model_copy(update={"sync": experiment.sync.model_copy(update={"precision": "exact"})})
    plain_spec = replace(spec, config=plain)
    works = [WorkerTrial.of(plain_spec, trial, plan.worker, worker_data(spec, plan)) for plan in plans]
    store = rounds_of(tmp_path / "run")
    model: Any = initial_states(spec)[0].weights
    starts = [model] * 3
    taken = np.zeros((3, model.size), np.float32)
    late = None
    for round_ in range(1, 8):
        ends = []
        for worker, work in enumerate(works):
            start = RoundStart(ModelState(starts[worker]), round_, range(2 * round_ - 2, 2 * round_))
            ends.append(next(local_training(work, start)))
        if late is not None:
            model = late.finish()
        late = Average(range(3), "any")
        for worker, end in enumerate(ends):
            difference = end.partial.weights.astype(np.float64) - starts[worker].astype(np.float64)
            if precision == "int8":
                wanted = difference + taken[worker]
                difference = decode(encode(wanted, "int8"), model.size, "int8")
                taken[worker] = wanted - difference
            first = starts[worker] is model and precision == "exact"
            contributed = end.partial.weights if first else (model.astype(np.float64) + difference).astype(np.float32)
            starts[worker] = contributed
            late.add(Partial(worker, end.rows, contributed, "any"))
        if round_ in (3, 6, 7):
            model, late = late.finish(), None
            starts = [model] * 3
            assert store.load(round_).trials[0].weights.tobytes() == model.tobytes()
    assert late is None


@pytest.mark.parametrize(
    ("workers", "changes"),
    [
        (1, {}),
        (2, {"sync__outer": {"kind": "nesterov", "lr": 0.7, "momentum": 0.5}}),
        (4, {"sync__precision": "int8", "sync__error_feedback": True}),
        (3, {"sweep": {"train.lr": [0.05, 1e6]}, "train__keep": "best"}),
        (3, {"train__stop": {"patience": 1, "min_delta": 0.05}, "train__epochs": 40}),
        (2, {"train__lr": 1e6}),
    ],
    ids=["one worker", "outer step", "few bytes", "one trial diverges", "early stopping", "all diverge"],
)
def test_processes_equal_one_process(blobs: str, tmp_path: Path, workers: int, changes: dict[str, Any]) -> None:
    for runner in ("inline", "local"):
        driver.train(overlapped(blobs, tmp_path / runner, workers=workers, runtime__runner=runner, **changes))
    assert substance(tmp_path / "inline") == substance(tmp_path / "local")
    assert committed(tmp_path / "inline") == committed(tmp_path / "local")
    found = verify(str(tmp_path / "inline"), every=True)
    assert (found.problems, found.notes) == ([], [])


def test_with_a_drain_in_every_round_nothing_is_late(blobs: str, tmp_path: Path) -> None:
    plain = driver.train(config(blobs, tmp_path / "plain"))
    drained = driver.train(overlapped(blobs, tmp_path / "run", sync__overlap_drain=1, train__epochs=8))
    assert drained.model_sha256 == plain.model_sha256
    late = driver.train(overlapped(blobs, tmp_path / "late", train__epochs=8))
    assert late.model_sha256 != plain.model_sha256


def test_only_drained_rounds_are_committed_and_the_ledger_tells_them(blobs: str, tmp_path: Path) -> None:
    found = []
    for every, expected in ((1, [0, 3, 6, 7]), (4, [0, 6, 7]), (100, [0, 7]), ("1s", None)):
        run = tmp_path / str(every)
        driver.train(overlapped(blobs, run, checkpoint__every=every))
        store = rounds_of(run)
        assert expected is None or [span[-1] for span in store.log.spans()] == expected
        assert [json.loads(store.log.ledger(round_))["drained"] for round_ in range(1, 8)] == [
            round_ in (3, 6, 7) for round_ in range(1, 8)
        ]
        found.append(substance(run))
    assert all(one == found[0] for one in found)


def test_a_run_goes_on_from_a_drain_only(blobs: str, tmp_path: Path) -> None:
    driver.train(overlapped(blobs, tmp_path / "whole"))
    driver.train(overlapped(blobs, tmp_path / "run", train__epochs=12))  # 6 rounds: two drains
    driver.train(overlapped(blobs, tmp_path / "run"), resume=True)
    assert substance(tmp_path / "run") == substance(tmp_path / "whole")
    with pytest.raises(ConfigError, match="waits for its last round"):
        driver.train(overlapped(blobs, tmp_path / "run", train__epochs=20), resume=True)


def in_threads(experiment: Config) -> list[Checkpoint | BaseException]:
    """What each worker has in the end; each is a thread with another one for its exchanges, all at once."""
    spec, plans = prepare(experiment, ignore)
    start = Checkpoint(0, initial_states(spec), RoundMetrics(0))

    def take_part(group: Communicator) -> Checkpoint | BaseException:
        try:
            with LocalWorker(spec, plans[group.worker]) as worker:
                return train_together(worker, group, start, None)
        except Exception as error:
            return error

    with ThreadPoolExecutor(spec.workers) as threads:
        return list(threads.map(take_part, MemoryGroup(spec.workers).communicators()))


def test_all_at_once_gives_the_bits_of_one_after_the_other(blobs: str, tmp_path: Path) -> None:
    experiment = overlapped(blobs, tmp_path / "run", sync__precision="float16")
    driver.train(experiment)
    expected = [trial.weights.tobytes() for trial in rounds_of(tmp_path / "run").load(7).trials]
    for end in in_threads(experiment):
        assert isinstance(end, Checkpoint) and end.round == 7
        assert [trial.weights.tobytes() for trial in end.trials] == expected


@pytest.mark.parametrize("round_", [1, 2, 3, 6])
def test_an_error_reaches_all_wherever_it_is_met(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_: int
) -> None:
    draw = WorkerTrial.draw_batches

    def fail(self: WorkerTrial, epoch: int) -> RoundBatches:
        if (self.worker, epoch) == (1, 2 * round_):
            raise MismatchError("rows are gone")
        return draw(self, epoch)

    monkeypatch.setattr(WorkerTrial, "draw_batches", fail)
    ends = in_threads(overlapped(blobs, tmp_path))
    assert [isinstance(end, WorkerFailedError) and (end.is_local, str(end.error.message)) for end in ends] == [
        (worker == 1, "rows are gone") for worker in range(3)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
@pytest.mark.parametrize("worker", [0, pytest.param(2, marks=pytest.mark.full)])
def test_a_worker_that_dies_is_replaced(blobs: str, tmp_path: Path, worker: int) -> None:
    assert_a_death_changes_nothing(blobs, tmp_path, worker, **OVERLAP)


def test_verify_recomputes_any_round(blobs: str, tmp_path: Path) -> None:
    driver.train(overlapped(blobs, tmp_path / "run"))
    for round_ in (2, 3, 4, 7):
        found = verify(str(tmp_path / "run"), round_=round_)
        assert (found.recomputed, found.problems, found.notes) == ([round_], [], [])


def test_rounds_to_the_next_drain(blobs: str, tmp_path: Path) -> None:
    late, plain = overlapped(blobs, tmp_path), config(blobs, tmp_path)
    assert [drained_round(late, round_) for round_ in range(1, 8)] == [3, 3, 3, 6, 6, 6, 7]
    assert [drained_round(plain, round_) for round_ in range(1, 5)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync__mode": "rounds"}, "needs sync.mode: collective"),
        ({"sync__gang_fallback": "rounds"}, "cannot go on in rounds mode"),
        ({"sync__every": "batch"}, "is for averages after epochs"),
        ({"train__epochs_per_round": "auto"}, "needs a number of train.epochs_per_round"),
        ({"train__optimizer_state": "average"}, "needs train.optimizer_state: reset"),
        ({"sync__overlap": 2}, "Input should be 0 or 1"),
    ],
)
def test_what_cannot_be_is_refused(blobs: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        overlapped(blobs, tmp_path, **changes)
