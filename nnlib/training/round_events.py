"""What there is to tell of a committed or finished round: the event for people, the facts for the run's journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nnlib.config.schema import Config
from nnlib.core.events import RoundDone, TrialStopped
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.round_length import round_count
from nnlib.run.spec import JobSpec
from nnlib.training.round_result import TrialOutput


def round_done(config: Config, metrics: Mapping[str, Any], seconds: float) -> RoundDone:
    """A round, from the metrics that are committed of it."""
    entries = metrics["trials"]

    def over(value: Callable[[dict[str, Any]], float | None]) -> float | None:
        return mean([value(entry) for entry in entries])

    drift = [
        worker["drift"]["relative"]
        for entry in entries
        for worker in (entry["training"] or {}).get("workers", [])
        if worker["drift"]["relative"] is not None
    ]
    r2 = over(lambda entry: entry["test"].get("r2"))
    return RoundDone(
        round=metrics["round"],
        rounds=round_count(config),
        epoch=metrics["epoch"],
        epochs=config.train.epochs,
        active_trials=sum(entry["status"] == "active" for entry in entries),
        train_loss=over(lambda entry: (entry["training"] or {}).get("loss")),
        test_loss=over(lambda entry: entry["test"]["loss"]),
        test_accuracy=over(lambda entry: entry["test"].get("accuracy")),
        test_metric=None if r2 is None else ("r2", r2),
        validation_loss=over(lambda entry: entry["validation"]["loss"]),
        drift=max(drift) if drift else None,
        seconds=seconds,
    )


def trials_stopped(spec: JobSpec, before: Checkpoint, after: Checkpoint) -> list[TrialStopped]:
    """The trials that a round ended."""
    return [
        TrialStopped(index, spec.trials[index].split, before.round, f"{new.status}: {new.reason}")
        for index, (old, new) in enumerate(zip(before.trials, after.trials, strict=True))
        if old.status == "active" != new.status
    ]


def phase_seconds(outputs: Mapping[int, TrialOutput]) -> dict[str, float]:
    """Seconds that the workers, summed over all, spent in each phase of a round."""
    phases: dict[str, float] = {}
    for output in outputs.values():
        phases["average"] = phases.get("average", 0.0) + output.average_seconds
        for record in output.records.values():
            for phase, spent in record.get("seconds", {}).items():
                phases[phase] = phases.get(phase, 0.0) + spent
    return {phase: round(spent, 4) for phase, spent in phases.items()}


def mean(values: list[float | None]) -> float | None:
    """Of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
