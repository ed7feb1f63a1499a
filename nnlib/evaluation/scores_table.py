"""The table of scores of several runs of one experiment: by run, trial and epoch.

One run holds all its trials (splits, folds, swept keys); runs differ in workers and streams. Scores at fewer epochs are
read off the longest run, at the round that reached them, where the schedule does not stretch with the epochs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnlib.config.kinds import SCHEDULES
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.core.metrics import METRICS, metrics_of
from nnlib.run.directory import RunDirectory
from nnlib.run.journal import last_rounds, read_events
from nnlib.run.metrics_view import metrics_lines


@dataclass(frozen=True)
class Variant:
    """One run of an evaluation: a number of workers, and how they sample (``sampling.streams``)."""

    workers: int
    streams: str

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return f"{self.streams}-{self.workers}"


@dataclass(frozen=True)
class Score:
    """A trial's scores at an epoch. ``metrics`` are those on the test rows by name (`nnlib.core.metrics`).

    They are None where they are not defined, and detailed ones at other epochs than that of the kept model.

    ``seconds`` is the time from its first round to the end of that round: comparable only between runs that
    were measured alone.
    """

    workers: int
    streams: str
    split: int
    fold: int
    overrides: str
    epoch: int
    round: int
    metrics: Mapping[str, float | None]
    validation_loss: float | None
    seconds: float | None
    run_dir: str

    @property
    def main(self) -> str:
        """The name of the metric that is compared: accuracy for classes, r2 for regression."""
        return "accuracy" if self.metrics.get("accuracy") is not None else "r2"

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON-able data, each metric under its name; ``accuracy`` and ``r2`` are always there."""
        data = {name: getattr(self, name) for name in _FIXED}
        return {**data, "accuracy": None, "r2": None, "loss": None, **self.metrics}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Score:
        """Read what `to_json` wrote."""
        return cls(
            **{name: data[name] for name in _FIXED}, metrics={name: data[name] for name in METRICS if name in data}
        )


_FIXED = tuple(name for name in Score.__dataclass_fields__ if name != "metrics")


def variants(config: Config) -> list[Variant]:
    """The runs an evaluation needs. One worker is the same run in both kinds of streams, so it is run once."""
    wanted = config.evaluate
    workers = list(dict.fromkeys(wanted.workers or [config.workers]))
    streams = list(dict.fromkeys(wanted.streams or [config.sampling.streams]))
    if wanted.control and 1 not in workers:
        workers.insert(0, 1)
    return [Variant(number, kind) for number in workers for kind in (streams if number > 1 else streams[:1])]


def checked_epochs(config: Config) -> list[int]:
    """The epochs to read scores at: each must end a round, and the schedule must not depend on the last."""
    epochs = sorted(set(config.evaluate.epochs or [config.train.epochs]))
    length = config.train.epochs_per_round
    for epoch in epochs:
        if epoch > config.train.epochs:
            raise ConfigError(f"{epoch} is more than train.epochs ({config.train.epochs})", key="evaluate.epochs")
        if length == "auto" and epoch != config.train.epochs:
            raise ConfigError(
                "with epochs_per_round auto rounds end where they may: evaluate each length by itself",
                key="evaluate.epochs",
            )
        if length != "auto" and epoch % length and epoch != config.train.epochs:
            raise ConfigError(
                f"after {epoch} epochs there is no average: rounds end every {length}",
                key="evaluate.epochs",
            )
        if epoch != config.train.epochs and SCHEDULES.of(config.train.schedule).reads_epochs:
            raise ConfigError(
                f"with the {config.train.schedule.kind} schedule a shorter run is no part of a longer "
                "one: evaluate each length by itself",
                key="evaluate.epochs",
            )
    return epochs


def scores_of(run: RunDirectory, epochs: Sequence[int]) -> list[Score]:
    """All trials' scores at the given epochs. A trial that stopped earlier counts with its last model."""
    spec = run.spec()
    config = spec.config
    store = run.rounds(spec)
    lines = metrics_lines(store, store.rounds(), run.final())
    seconds = round_seconds(run)
    table = []
    for trial in spec.trials:
        scored = [(line, line.scores) for line in lines if line.trial == trial.index and line.scores is not None]
        for epoch in epochs:
            line, scores = max((pair for pair in scored if pair[0].epoch <= epoch), key=lambda pair: pair[0].round)
            table.append(
                Score(
                    workers=config.workers,
                    streams=config.sampling.streams,
                    split=trial.split,
                    fold=trial.fold,
                    overrides=json.dumps(dict(trial.overrides), sort_keys=True),
                    epoch=epoch,
                    round=line.round,
                    metrics={name: scores.test.value(name) for name in metrics_of(spec.dataset.task)},
                    validation_loss=scores.validation.loss,
                    seconds=seconds.get(line.round),
                    run_dir=run.address,
                )
            )
    return table


def round_ends(run: RunDirectory) -> dict[int, int]:
    """Epoch -> the round that it ends, of a run's committed rounds."""
    store = run.rounds(run.spec())
    return {store.log.metrics(round_).epoch: round_ for round_ in store.rounds()}


def round_seconds(run: RunDirectory) -> dict[int, float]:
    """Sum the seconds from the start of training to the end of each round, over all resumes: round -> seconds. Without
    events only {0: 0.0}."""
    total, seconds = 0.0, {0: 0.0}
    for recorded in last_rounds(read_events(run)):
        total += recorded.event.seconds
        seconds[recorded.event.round] = total
    return seconds


def to_table(scores: Sequence[Score]) -> Any:
    """The scores as an Arrow table, one row each."""
    import pyarrow as pa

    rows = [score.to_json() for score in scores]
    kinds = {"workers": pa.int64(), "split": pa.int64(), "fold": pa.int64(), "epoch": pa.int64(), "round": pa.int64()}
    texts = {"streams", "overrides", "run_dir"}
    names = dict.fromkeys(name for row in rows for name in row)
    fields = [pa.field(name, kinds.get(name, pa.string() if name in texts else pa.float64())) for name in names]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
