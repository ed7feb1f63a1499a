"""The ledger: one canonical JSON line a round, each chained to the one before.

A line holds only what the run's mathematics decides (no times, hosts or attempts), so a run that was killed, retried
or moved has the ledger of one that was not. It names its predecessor by hash: a change of one line needs a change
of all lines behind it, and recomputing a round gives the same hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.run.frozen import FrozenFacts
from nnlib.run.round_length import drained_round
from nnlib.run.round_metrics import RoundMetrics, TrialMetrics
from nnlib.run.spec import JobSpec


@dataclass(frozen=True)
class RunIdentity:
    """What every line says of its run: the hash of its configuration, its dataset's fingerprint, its workers."""

    config: str
    dataset: str
    workers: int

    @classmethod
    def of(cls, spec: JobSpec) -> RunIdentity:
        """Take the facts of a run."""
        return cls(spec.config_hash, spec.dataset.fingerprint, spec.config.workers)


@dataclass(frozen=True)
class WeightsOrigin:
    """Round 0 has weights that a program passed: their SHA-256, one a trial."""

    weights: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the origin as JSON-able data."""
        return {"weights": list(self.weights)}


@dataclass(frozen=True)
class RunOrigin:
    """Round 0 has the weights of another run (``train --from``): after its round ``round``, or, if ``final``, the ones
    it kept at its end; ``ledger`` is the SHA-256 of that round's line in its ledger."""

    round: int
    final: bool
    ledger: str

    def to_json(self) -> dict[str, Any]:
        """Return the origin as JSON-able data."""
        return {"round": self.round, "final": self.final, "ledger": self.ledger}


Origin = WeightsOrigin | RunOrigin


@dataclass(frozen=True)
class FirstFacts:
    """What the line of round 0 says: what the run is made of. ``trials`` is a hash of their plan, ``shards`` has the
    SHA-256 of each; ``parent`` is where the weights come from, None where the seeds decide them; ``frozen`` are the
    parameters that no round trains, None if there are none."""

    run: RunIdentity
    seed: int
    splits: tuple[int, ...]
    folds: tuple[int, ...]
    trials: str
    shards: Mapping[str, str]
    parent: Origin | None = None
    frozen: FrozenFacts | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-able data."""
        return {
            "round": 0,
            "config": self.run.config,
            "dataset": self.run.dataset,
            "workers": self.run.workers,
            "seed": self.seed,
            "splits": list(self.splits),
            "folds": list(self.folds),
            "trials": self.trials,
            "shards": dict(self.shards),
            "parent": None if self.parent is None else self.parent.to_json(),
            **({} if self.frozen is None else {"frozen": self.frozen.to_json()}),
        }


@dataclass(frozen=True)
class TrialFacts:
    """What a line says of a trial: its status after the round; by worker, the examples it trained and its drift; and
    the workers that were ``missing`` (a quorum's round is not the one that all workers would have made)."""

    trial: int
    status: str
    examples: tuple[int, ...]
    drift: tuple[float | None, ...]
    cosine: tuple[float | None, ...]
    missing: tuple[int, ...] = ()

    @classmethod
    def of(cls, metrics: TrialMetrics) -> TrialFacts:
        """Take the facts from a trial's metrics of the round."""
        workers, missing = metrics.workers, metrics.scores.missing
        return cls(
            trial=metrics.trial,
            status=metrics.status,
            examples=tuple(worker.examples for worker in workers),
            drift=tuple(worker.drift.relative for worker in workers),
            cosine=tuple(worker.drift.cosine for worker in workers),
            missing=() if missing is None else missing.workers,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-able data."""
        return {
            "trial": self.trial,
            "status": self.status,
            "examples": list(self.examples),
            "drift": list(self.drift),
            "cosine": list(self.cosine),
            **({"missing": list(self.missing)} if self.missing else {}),
        }


@dataclass(frozen=True)
class RoundFacts:
    """What the line of a later round says: the epochs it trained, by which numerics, and what became of each trial.

    ``drained`` is there with ``sync.overlap``: whether the round was waited for, or averaged while the next one
    trained.
    """

    run: RunIdentity
    round: int
    epochs: range
    numerics: tuple[str, ...]
    trials: tuple[TrialFacts, ...]
    drained: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-able data."""
        return {
            "round": self.round,
            "config": self.run.config,
            "dataset": self.run.dataset,
            "workers": self.run.workers,
            "epochs": [self.epochs.start, self.epochs.stop],
            "numerics": list(self.numerics),
            "trials": [trial.to_json() for trial in self.trials],
            **({} if self.drained is None else {"drained": self.drained}),
        }


Facts = FirstFacts | RoundFacts


@dataclass(frozen=True)
class LedgerLine:
    """A line as it is read back: what its chain, its files and its run are compared by.

    ``files`` has SHA-256 by name; ``previous`` is the hash of the line before (None in round 0). ``facts`` are all of
    the line as it stands: a line that somebody altered may hold anything.
    """

    files: Mapping[str, str]
    previous: str | None
    facts: Mapping[str, Any]

    @classmethod
    def parse(cls, line: bytes) -> LedgerLine:
        """Read a line. Raises `ValueError`, `KeyError` or `TypeError` where it is none."""
        facts = json.loads(line)
        return cls(dict(facts["files"]), facts["previous"], facts)

    @property
    def numerics(self) -> tuple[str, ...]:
        """The numerics of the round's workers; () in round 0."""
        return tuple(self.facts.get("numerics", ()))

    @property
    def lacks_workers(self) -> bool:
        """Whether workers were missing from a later round."""
        return any(trial.get("missing") for trial in self.facts["trials"])

    @property
    def has_origin(self) -> bool:
        """Whether the weights of round 0 come from elsewhere than the seeds."""
        return self.facts["parent"] is not None


def canonical(data: Mapping[str, Any]) -> bytes:
    """Encode as JSON with sorted keys, no spaces, no NaN, on one line: equal data, equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def digest(data: bytes) -> str:
    """Compute the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def ledger_line(facts: Facts, files: Mapping[str, bytes], previous: bytes | None) -> bytes:
    """Make a round's line: its facts, the hashes of what it commits, the hash of the line before (None for round 0)."""
    hashes = {name: digest(data) for name, data in files.items()}
    chain = None if previous is None else digest(previous)
    return canonical({"format_version": FORMAT_VERSION, **facts.to_json(), "files": hashes, "previous": chain})


def first_facts(spec: JobSpec, parent: Origin | None) -> FirstFacts:
    """Make the facts of round 0; ``parent`` is where the weights of a warm start come from."""
    return FirstFacts(
        run=RunIdentity.of(spec),
        seed=spec.config.seed,
        splits=tuple(trial.split for trial in spec.trials),
        folds=tuple(trial.fold for trial in spec.trials),
        trials=digest(canonical({"trials": [trial.to_json() for trial in spec.trials]})),
        shards={shard.name: shard.sha256 for shard in spec.dataset.shards},
        parent=parent,
        frozen=spec.frozen,
    )


def round_facts(spec: JobSpec, metrics: RoundMetrics, kernels: Sequence[str]) -> RoundFacts:
    """Make the facts of a later round from its metrics and the numerics (``kernels``) of its workers."""
    round_ = metrics.round
    return RoundFacts(
        run=RunIdentity.of(spec),
        round=round_,
        epochs=metrics.epochs,
        numerics=tuple(kernels),
        trials=tuple(map(TrialFacts.of, metrics.trials)),
        drained=drained_round(spec.config, round_) == round_ if spec.config.sync.overlap else None,
    )
