"""What the timings of several numbers of workers say: speed-up, efficiency, improvement, and published times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.experiments.scaling import Timing
from nnlib import FORMAT_VERSION
from nnlib.config.schema import Config
from nnlib.simulate.reference_times import REFERENCE_TIMES
from nnlib.simulate.speedup import efficiency, improvement, speedup


@dataclass(frozen=True)
class ScalingPoint:
    """One number of workers against one worker.

    ``seconds`` is the median of ``all_seconds``, the repeats. ``improvement`` is PI % = (T1 - Tx) / T1 * 100.
    ``diverged`` counts trials. ``test_metric`` is None for classification.
    """

    workers: int
    seconds: float
    all_seconds: list[float]
    speedup: float
    efficiency: float
    improvement: float
    examples_per_second: float
    test_accuracy: float | None
    test_accuracy_sd: float | None
    diverged: int
    resumed: bool
    run_dir: str
    test_metric: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the point as ``scale.json`` keeps it."""
        fields = asdict(self)
        if self.test_metric is None:
            del fields["test_metric"]
        return fields


@dataclass(frozen=True)
class PublishedPoint:
    """One published time: its improvement by the formula (None for one worker), and as the publication states it."""

    workers: int
    seconds: float
    improvement: float | None
    stated: float | None


@dataclass(frozen=True)
class PublishedTimes:
    """The table of a publication whose experiment the configuration repeats."""

    title: str
    note: str
    points: list[PublishedPoint]


@dataclass(frozen=True)
class ScalingStudy:
    """A measurement of several numbers of workers. ``trials`` are trained in the same jobs."""

    name: str
    runner: str
    trials: int
    points: list[ScalingPoint]
    published: PublishedTimes | None

    def to_json(self) -> dict[str, Any]:
        """Return the study as ``scale.json`` keeps it and ``--json`` prints it."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "runner": self.runner,
            "trials": self.trials,
            "points": [point.to_json() for point in self.points],
            "published": None if self.published is None else asdict(self.published),
        }


def study_timings(config: Config, timings: Sequence[Sequence[Timing]]) -> ScalingStudy:
    """Compare each number of workers with one, by the medians of their repeats.

    Args:
        config: the experiment; its name says which published table it repeats, if any.
        timings: the repeats of each number of workers; one worker must be among them.
    """
    medians = {runs[0].workers: statistics.median(run.seconds for run in runs) for runs in timings}
    return ScalingStudy(
        name=config.name,
        runner=config.runtime.runner,
        trials=len(config.split.seeds) * max(config.split.folds, 1),
        points=[_point(runs, medians) for runs in timings],
        published=_published(config.name),
    )


def _point(runs: Sequence[Timing], medians: dict[int, float]) -> ScalingPoint:
    first = runs[0]
    one, seconds = medians[1], medians[first.workers]
    return ScalingPoint(
        workers=first.workers,
        seconds=round(seconds, 3),
        all_seconds=[run.seconds for run in runs],
        speedup=speedup(one, seconds),
        efficiency=efficiency(one, seconds, first.workers),
        improvement=improvement(one, seconds),
        examples_per_second=statistics.median(run.examples_per_second for run in runs),
        test_accuracy=first.test_accuracy,
        test_accuracy_sd=first.accuracy_sd,
        diverged=max(run.diverged for run in runs),
        resumed=any(run.resumed for run in runs),
        run_dir=first.run_dir,
        test_metric=first.test_metric,
    )


def _published(name: str) -> PublishedTimes | None:
    table = REFERENCE_TIMES.get(name)
    if table is None:
        return None
    rows = zip(table.workers, table.seconds, table.improvements(), table.stated, strict=True)
    points = [
        PublishedPoint(workers, seconds, gain if workers > 1 else None, stated)
        for workers, seconds, gain, stated in rows
    ]
    return PublishedTimes(table.title, table.note, points)
