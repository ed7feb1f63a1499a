"""What a worker reports of a round: its scores, its training, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnlib.core.errors import MismatchError, NnjobsError, from_record
from nnlib.storage.traffic import Price
from nnlib.training.scores import Score, score_from_json

COMMIT = "commit"
ERROR = "error"


@dataclass(frozen=True)
class TrainingRecord:
    """The training of a trial on one worker: the mean loss of each epoch, the rows of an epoch, and how many times an
    optimizer that uses all rows at once evaluated them (0 for one that takes steps)."""

    losses: tuple[float, ...]
    examples: int
    evaluations: int

    @property
    def passes(self) -> int:
        """How many times the rows were gone through."""
        return self.evaluations or len(self.losses)


@dataclass(frozen=True)
class WorkerRecord:
    """What one worker reports of one trial in a round.

    ``numerics`` is the fingerprint of its numpy and BLAS kernels. ``test`` and ``validation`` score the model that the
    round starts from on the worker's held-out rows. ``training`` is None where it only scored or ``diverged``.
    ``seconds`` are by phase: read, score, train; {} where nothing was trained. ``host`` is the machine that it ran on.
    ``requests`` were made of storages that charge for them, by price, since the record before.
    """

    numerics: str
    test: Score
    validation: Score
    training: TrainingRecord | None = None
    diverged: NnjobsError | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    host: str = ""
    requests: Mapping[Price, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able data."""
        data: dict[str, Any] = {
            "numerics": self.numerics,
            "test": self.test.to_json(),
            "validation": self.validation.to_json(),
        }
        if self.training is not None:
            data["losses"] = list(self.training.losses)
            data["examples"] = self.training.examples
            data["evaluations"] = self.training.evaluations
        if self.diverged is not None:
            data["diverged"] = self.diverged.to_record()
        if self.seconds:
            data["seconds"] = dict(self.seconds)
        if self.host:
            data["host"] = self.host
        if self.requests:
            data["requests"] = dict(self.requests)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], task: str, classes: int) -> WorkerRecord:
        """Read what `to_json` wrote of a dataset's task. Raises `MismatchError` where it is something else."""
        try:
            training = None
            if "losses" in data:
                training = TrainingRecord(tuple(data["losses"]), data["examples"], data["evaluations"])
            return cls(
                numerics=data["numerics"],
                test=score_from_json(data["test"], task, classes),
                validation=score_from_json(data["validation"], task, classes),
                training=training,
                diverged=from_record(data["diverged"]) if "diverged" in data else None,
                seconds=data.get("seconds", {}),
                host=data.get("host", ""),
                requests=data.get("requests", {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MismatchError(f"a worker's record lacks or garbles {error}") from error


@dataclass(frozen=True)
class WorkerReport:
    """What one worker of a group sends to all others in a round: a record by trial, or the ``error`` for which it has
    none. ``commit``: the round is to be committed (only worker 0 decides that)."""

    records: dict[int, WorkerRecord] = field(default_factory=dict)
    commit: bool = False
    error: NnjobsError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        data: dict[str, Any] = {str(trial): record.to_json() for trial, record in self.records.items()}
        if self.commit:
            data[COMMIT] = True
        if self.error is not None:
            data[ERROR] = self.error.to_record()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], task: str, classes: int) -> WorkerReport:
        """Read what `to_json` wrote of a dataset's task. Raises `MismatchError` where it is something else."""
        return cls(
            {int(key): WorkerRecord.from_json(data[key], task, classes) for key in data if key.isdigit()},
            commit=COMMIT in data,
            error=from_record(data[ERROR]) if ERROR in data else None,
        )
