"""The data of a report: read from run directories, nothing drawn yet.

A *series* is what is compared: the trials of one run that differ only in split and fold. A run without a sweep is one
series; a sweep has one for each of its combinations.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from nnlib.config.earlier import stable_values
from nnlib.config.identity import differences
from nnlib.core.arrays import FloatArray
from nnlib.core.errors import UsageError
from nnlib.core.metrics import metrics_of
from nnlib.evaluation.statistics import Comparison, Summary, compare, holm, summarize, verdict
from nnlib.export.card import trained_versions
from nnlib.report.lost_workers import Gap, LostTask, gaps, lost_tasks
from nnlib.run.directory import CONFIG, RunDirectory
from nnlib.run.final_result import FinalTrial
from nnlib.run.journal import RecordedEvent, last_rounds, read_events
from nnlib.run.metrics_view import MetricsLine, metrics_lines
from nnlib.run.names import run_names
from nnlib.run.round_length import round_count
from nnlib.run.round_store import LedgerRoot
from nnlib.run.run_events import RoundEvent, StartEvent
from nnlib.run.score_summary import CalibrationCounts, ClassificationSummary
from nnlib.run.spec import JobSpec, Trial

PHASES = ("start", "read", "score", "train", "average", "commit")
ALL_PAIRS = 6
"""Up to this many series all pairs are compared; of more, each with the first."""


@dataclass
class Times:
    """Seconds of a run's rounds by phase (`PHASES`), and the bytes that each round shuffled, and uploaded to storage on
    other machines (``start_bytes`` went up before the first).

    The work of tasks that ran at once is divided by their number; ``start`` is what is left of the jobs' time: starting
    tasks, moving their output, waiting for the slowest. ``commit`` is the outer step and the writing of the round.
    """

    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    seconds: float = 0.0
    rounds: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    uploaded: list[int] = field(default_factory=list)
    start_bytes: int = 0
    runners: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[RecordedEvent]) -> Times | None:
        """Add up the rounds of a run's events; None if there is none."""
        times = cls()
        for recorded in events:
            if isinstance(start := recorded.event, StartEvent):
                times.start_bytes += start.uploaded_bytes
                if start.runner not in times.runners:
                    times.runners.append(start.runner)
        for each in last_rounds(events):
            times._add(each.event, each.slots)
        return times if times.rounds else None

    def _add(self, event: RoundEvent, slots: int) -> None:
        work = event.worker_seconds
        job = event.seconds if event.job_seconds is None else event.job_seconds
        for phase, spent in work.items():
            self.phases[phase] += spent / slots
        self.phases["start"] += max(0.0, job - sum(work.values()) / slots)
        self.phases["commit"] += event.seconds - job
        self.seconds += event.seconds
        if event.shuffled_bytes is not None:
            self.rounds.append(event.round)
            self.bytes.append(event.shuffled_bytes)
            self.uploaded.append(event.uploaded_bytes)


@dataclass(frozen=True)
class RunFacts:
    """A run as a whole. ``lines`` are those of ``metrics.jsonl``; ``scored`` has the newest scores of every trial."""

    directory: RunDirectory
    spec: JobSpec
    name: str
    finished: bool
    rounds: int
    lines: list[MetricsLine]
    scored: list[FinalTrial]
    model_sha256: str | None
    ledger: LedgerRoot
    config_text: str
    config_sha256: str
    versions: dict[str, str]
    times: Times | None
    gaps: list[Gap]
    losses: list[LostTask]

    @property
    def rounds_planned(self) -> int | None:
        """The rounds of the whole run; None where their lengths are chosen while it trains."""
        return round_count(self.spec.config)

    @property
    def lengths(self) -> list[int]:
        """Epochs of each round."""
        ends = sorted({line.epoch for line in self.lines})
        return [end - start for start, end in pairwise(ends)]

    @classmethod
    def read(cls, address: str, name: str) -> RunFacts:
        """Raises `UsageError` if there is no run or nothing of it has been scored."""
        directory = RunDirectory.open(address)
        spec, final = directory.spec(), directory.final()
        spec.admit_code()
        store = directory.rounds(spec)
        newest, rounds = store.newest(), store.rounds()
        lines = metrics_lines(store, rounds, final)
        scored = _newest(spec, lines) if final is None else list(final.trials)
        if len(scored) < len(spec.trials):
            raise UsageError(
                "nothing of this run has been scored yet", hint="a report needs one whole round", run=directory.address
            )
        events = read_events(directory)
        return cls(
            directory,
            spec,
            name,
            final is not None,
            newest,
            lines,
            scored,
            None if final is None else final.model_sha256,
            LedgerRoot.of(store),
            directory.storage.read(CONFIG).decode("utf-8", "replace"),
            spec.config_hash,
            trained_versions(directory),
            Times.of(events),
            gaps(spec, lines, newest),
            lost_tasks(events),
        )


@dataclass(frozen=True)
class Series:
    """Trials of a run that differ only in split and fold, with their curves.

    ``curves`` has for the main score and the loss an array (trials, epochs), NaN where there is none; a trial that
    stopped keeps its last score. ``drift`` is (rounds, 3): lowest, mean and highest over workers and trials of a
    worker's distance from the average, relative to it.
    """

    run: RunFacts
    label: str
    trials: tuple[Trial, ...]
    epochs: list[int]
    curves: dict[str, FloatArray]
    drift_rounds: list[int]
    drift: FloatArray

    @property
    def task(self) -> str:
        """``classification`` or ``regression``."""
        return self.run.spec.dataset.task

    @property
    def score(self) -> str:
        """The score that is compared."""
        return metrics_of(self.task)[0]

    @property
    def results(self) -> list[FinalTrial]:
        """The kept models' scores, in trial order."""
        return [self.run.scored[trial.index] for trial in self.trials]

    @property
    def test_to_train(self) -> float:
        """Test rows / training rows, for the corrected t-test."""
        return sum(sum(trial.test_rows) for trial in self.trials) / sum(map(self.run.spec.train_rows, self.trials))

    def values(self, score: str) -> list[float | None]:
        """Return a score of each kept model on its test rows, in trial order."""
        return [trial.test.value(score) for trial in self.results]

    @property
    def sent(self) -> float | None:
        """Bytes that its workers sent for one model; None where that was not kept, or other series were in the run."""
        times = self.run.times
        if times is None or not times.bytes or len(self.trials) < len(self.run.spec.trials):
            return None
        return sum(times.bytes) / len(self.trials)

    def summary(self, score: str) -> Summary:
        """Summarize a score over the trials."""
        return summarize(self.values(score), self.test_to_train)

    def pooled(self) -> ClassificationSummary:
        """Add up the classes' counts and the calibration of all trials' test rows; what a trial lacks is None."""
        tests = [trial.test for trial in self.results if isinstance(trial.test, ClassificationSummary)]
        tests = [test for test in tests if test.rows]
        counts = [test.calibration for test in tests if test.calibration is not None]
        calibration = None
        if tests and len(counts) == len(tests):
            calibration = CalibrationCounts(
                rows=[sum(column) for column in zip(*(each.rows for each in counts), strict=True)],
                hits=[sum(column) for column in zip(*(each.hits for each in counts), strict=True)],
                confidence=[math.fsum(column) for column in zip(*(each.confidence for each in counts), strict=True)],
            )
        return ClassificationSummary(
            rows=sum(test.rows for test in tests),
            loss=None,
            accuracy=None,
            confusion=_total([test.confusion for test in tests]),
            class_rows=_total([test.class_rows for test in tests]),
            class_hits=_total([test.class_hits for test in tests]),
            class_predicted=_total([test.class_predicted for test in tests]),
            calibration=calibration,
        )


@dataclass(frozen=True)
class Pair:
    """Two series compared on the test rows they share. ``p`` is adjusted for all pairs (Holm)."""

    first: str
    second: str
    score: str
    comparison: Comparison
    p: float | None
    words: str


def read_series(addresses: Sequence[str]) -> list[Series]:
    """All series of some runs, in their order. Raises `UsageError` for a run that is named twice or of another task."""
    names = run_names([RunDirectory(address).address for address in addresses])
    runs = [RunFacts.read(address, name) for address, name in zip(addresses, names, strict=True)]
    if len({run.spec.dataset.task for run in runs}) > 1:
        raise UsageError("classification and regression cannot stand in one report", hint="make one report for each")
    series = []
    for run in runs:
        groups: dict[str, list[Trial]] = {}
        for trial in run.spec.trials:
            groups.setdefault(json.dumps(trial.overrides, sort_keys=True), []).append(trial)
        for trials in groups.values():
            swept = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in trials[0].overrides.items())
            label = swept if len(runs) == 1 and swept else f"{run.name}, {swept}" if swept else run.name
            series.append(_series(run, label, tuple(trials)))
    return series


def compare_series(series: Sequence[Series]) -> list[Pair]:
    """Pairs of series over their common splits: those of equal dataset, split, fold and rows."""
    if len(series) <= ALL_PAIRS:
        pairs = [(a, b) for index, a in enumerate(series) for b in series[index + 1 :]]
    else:
        pairs = [(series[0], other) for other in series[1:]]
    compared = [_compared(a, b) for a, b in pairs]
    adjusted = holm([comparison.p for comparison in compared])
    return [
        Pair(a.label, b.label, a.score, comparison, p, verdict(comparison, p))
        for (a, b), comparison, p in zip(pairs, compared, adjusted, strict=True)
    ]


def differing_keys(series: Sequence[Series]) -> list[tuple[str, list[Any]]]:
    """Keys of the mathematics in which the series' configurations differ, each with its value in every series."""
    settings = [each.run.spec.settings(each.trials[0]) for each in series]
    plain = [config.model_copy(update={"sweep": {}}) for config in settings]
    keys = sorted({key for other in plain[1:] for key in differences(plain[0], other)})
    return [(key, [_value_at(stable_values(config), key) for config in plain]) for key in keys]


def _total(counts: Sequence[Any]) -> Any:
    """The counts of all trials added up; None where one has none."""
    return None if not counts or any(each is None for each in counts) else np.sum(counts, axis=0).tolist()


def _compared(a: Series, b: Series) -> Comparison:
    left, right = a.run.spec, b.run.spec
    first: list[float | None] = []
    second: list[float | None] = []
    if left.dataset.fingerprint == right.dataset.fingerprint:
        others = {(trial.split, trial.fold): trial for trial in b.trials}
        for trial in a.trials:
            other = others.get((trial.split, trial.fold))
            if other is not None and other.rule.to_json() == trial.rule.to_json():
                first.append(a.run.scored[trial.index].test.value(a.score))
                second.append(b.run.scored[other.index].test.value(b.score))
    return compare(first, second, max(a.test_to_train, b.test_to_train))


def _newest(spec: JobSpec, lines: Sequence[MetricsLine]) -> list[FinalTrial]:
    """For a run that is not finished: the newest scores of each trial that has any, in trial order."""
    newest: dict[int, FinalTrial] = {}
    for line in lines:
        if line.scores is not None:
            trial = spec.trials[line.trial]
            newest[trial.index] = FinalTrial(
                trial=trial.index,
                fold=trial.fold,
                folds=spec.config.split.folds,
                overrides=trial.overrides,
                status="training",
                reason=None,
                round=line.round,
                scores=line.scores,
            )
    return [newest[index] for index in sorted(newest)]


def _series(run: RunFacts, label: str, trials: tuple[Trial, ...]) -> Series:
    rows = {trial.index: row for row, trial in enumerate(trials)}
    lines = [line for line in run.lines if line.trial in rows]
    scored = [(line, line.scores.test) for line in lines if line.scores is not None]
    epochs = sorted({line.epoch for line, _ in scored})
    column = {epoch: number for number, epoch in enumerate(epochs)}
    curves = {}
    for score in (metrics_of(run.spec.dataset.task)[0], "loss"):
        curve = np.full((len(trials), len(epochs)), np.nan)
        for line, test in scored:
            value = test.value(score)
            curve[rows[line.trial], column[line.epoch]] = math.nan if value is None else value
        if not np.isnan(curve).all():
            curves[score] = _carried(curve)
    apart: dict[int, list[float]] = {}
    for line in lines:
        for worker in line.workers:
            if worker.drift.relative is not None:
                apart.setdefault(line.round, []).append(worker.drift.relative)
    band = [[min(values), statistics.fmean(values), max(values)] for _, values in sorted(apart.items())]
    return Series(run, label, trials, epochs, curves, sorted(apart), np.array(band).reshape(-1, 3))


def _carried(curve: FloatArray) -> FloatArray:
    """A trial's last score goes on to the end: its model did not change any more."""
    for row in curve:
        known = np.flatnonzero(~np.isnan(row))
        if len(known):
            row[known[-1] :] = row[known[-1]]
    return curve


def _value_at(values: dict[str, Any], key: str) -> Any:
    value: Any = values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
