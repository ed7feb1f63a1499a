"""What people see of a committed round: the events for a display, the seconds for the run's journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nnlib.config.schema import Config
from nnlib.core.events import RoundDone, TrialStopped, WorkerProgress
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.round_length import round_count
from nnlib.run.round_metrics import RoundMetrics
from nnlib.run.spec import JobSpec
from nnlib.storage.traffic import PROCESS, Price
from nnlib.training.round_result import TrialOutput


def round_done(config: Config, metrics: RoundMetrics, seconds: float) -> RoundDone:
    """Make the event of a round from its committed metrics; ``seconds`` is how long it took."""
    trials = metrics.trials
    drift = [worker.drift.relative for trial in trials for worker in trial.workers if worker.drift.relative is not None]
    tests = [trial.scores.test for trial in trials]
    r2 = mean([test.value("r2") for test in tests])
    return RoundDone(
        round=metrics.round,
        rounds=round_count(config),
        epoch=metrics.epoch,
        epochs=config.train.epochs,
        active_trials=sum(trial.status == "active" for trial in trials),
        train_loss=mean([None if trial.training is None else trial.training.loss for trial in trials]),
        test_loss=mean([test.loss for test in tests]),
        test_accuracy=mean([test.value("accuracy") for test in tests]),
        test_metric=None if r2 is None else ("r2", r2),
        validation_loss=mean([trial.scores.validation.loss for trial in trials]),
        drift=max(drift) if drift else None,
        seconds=seconds,
    )


def trials_stopped(spec: JobSpec, before: Checkpoint, after: Checkpoint) -> list[TrialStopped]:
    """Make the events of the trials that a round ended."""
    return [
        TrialStopped(index, spec.trials[index].split, before.round, f"{new.status}: {new.reason}")
        for index, (old, new) in enumerate(zip(before.trials, after.trials, strict=True))
        if old.status == "active" != new.status
    ]


def phase_seconds(outputs: Mapping[int, TrialOutput]) -> dict[str, float]:
    """Sum the seconds that all workers spent in each phase of a round."""
    phases: dict[str, float] = {}
    for output in outputs.values():
        phases["average"] = phases.get("average", 0.0) + output.average_seconds
        for record in output.records.values():
            for phase, spent in record.seconds.items():
                phases[phase] = phases.get(phase, 0.0) + spent
    return {phase: round(spent, 4) for phase, spent in phases.items()}


def priced_requests(outputs: Mapping[int, TrialOutput]) -> dict[Price, int] | None:
    """Sum the requests that were made of storages that charge for them, by price: those that workers report, and those
    that this process has made since it was last asked. None where there were none."""
    total = Counter(PROCESS.take_priced())
    for output in outputs.values():
        for record in output.records.values():
            total.update(record.requests)
    return dict(sorted(total.items())) or None


def worker_progress(outputs: Mapping[int, TrialOutput], seconds: float) -> tuple[WorkerProgress, ...]:
    """Return what each worker that answered did in a round of so many ``seconds``: its training loss, its speed, and
    how long it waited for others (the round's time less its own work), in the order of the workers."""
    progress = []
    for worker in sorted(set[int]().union(*(output.records for output in outputs.values()))):
        records = [output.records[worker] for output in outputs.values() if worker in output.records]
        trained = [(record, record.training) for record in records if record.training is not None]
        busy = sum(sum(record.seconds.values()) for record in records)
        rows = sum(training.examples * training.passes for _, training in trained)
        training_seconds = sum(record.seconds["train"] for record, _ in trained)
        progress.append(
            WorkerProgress(
                worker=worker,
                loss=sum(training.losses[-1] for _, training in trained) / len(trained) if trained else None,
                examples_per_second=rows / training_seconds if training_seconds > 0.0 else None,
                wait=max(0.0, seconds - busy),
                host=records[0].host,
            )
        )
    return tuple(progress)


def mean(values: Sequence[float | None]) -> float | None:
    """Average the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
