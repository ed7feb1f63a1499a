"""A run's committed rounds as points of curves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence

from nnlib.core.metrics import METRICS
from nnlib.run.directory import RunDirectory
from nnlib.run.journal import last_rounds, read_events
from nnlib.run.round_length import combined_drift
from nnlib.run.round_metrics import RoundMetrics, TrialScores
from nnlib.tracking.protocol import Point


def round_points(metrics: RoundMetrics, when: float, seconds: float | None) -> list[Point]:
    """The points of one round, from its metrics: what its job scored belongs to the epoch it started from, what it
    trained to the epoch it ended with. Means are over the trials that it trained."""
    trained = [trial.training for trial in metrics.trials if trial.training is not None]
    values: dict[str, float] = {"train/epochs_in_round": len(metrics.epochs), "train/trials": len(trained)}
    if trained:
        values["train/loss"] = statistics.fmean(training.loss for training in trained)
    if (drift := combined_drift(metrics.trials)) is not None:
        values["train/drift"] = drift
    if seconds is not None:
        values["time/round_seconds"] = seconds
    scores = score_values([trial.scores for trial in metrics.trials])
    return [Point(metrics.epochs.start, when, scores), Point(metrics.epochs.stop, when, values)]


def score_values(trials: Sequence[TrialScores]) -> dict[str, float]:
    """Average the scores of all trials, by name: ``test/accuracy`` ..."""
    means = {}
    parts = {"test": [trial.test for trial in trials], "validation": [trial.validation for trial in trials]}
    for part, summaries in parts.items():
        for score in METRICS:
            values = [summary.value(score) for summary in summaries]
            known = [value for value in values if value is not None]
            if known:
                means[f"{part}/{score}"] = statistics.fmean(known)
    return means


class History:
    """The committed rounds of a run as points. One thread may use it while the driver commits."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._store = run.rounds(run.spec())

    def committed(self) -> set[int]:
        """List the committed rounds."""
        return set(self._store.rounds())

    def points(self, round_: int, when: float, seconds: float | None) -> list[Point]:
        """Make the points of a round, which was done at ``when`` (seconds since 1970) and took ``seconds``."""
        return round_points(self._store.log.metrics(round_), when, seconds)

    def recorded(self, newest: int) -> Iterable[Point]:
        """Make the points of all rounds up to ``newest``, with the times that the run's events have of them."""
        events = {each.event.round: each for each in last_rounds(read_events(self._run))}
        for round_ in range(1, newest + 1):
            recorded = events.get(round_)
            if recorded is None:
                yield from self.points(round_, time.time(), None)
            else:
                yield from self.points(round_, recorded.time or time.time(), recorded.event.seconds)

    def final(self, when: float) -> list[Point]:
        """The scores of the kept models, at the run's last epoch."""
        final = self._run.final()
        if final is None:
            return []
        epoch = self._store.log.metrics(self._store.newest()).epoch
        scores = score_values([trial.scores for trial in final.trials])
        values = {f"kept/{name}": value for name, value in scores.items()}
        return [Point(epoch, when, values)]
