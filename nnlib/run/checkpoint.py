"""Rounds on disk: a round is committed whole or it does not exist.

``rounds/000007/`` holds the state after 7 rounds: ``model.safetensors`` (each trial's parameters by name),
``state.safetensors`` (outer steps' and averaged optimizers' vectors; absent if there are none), ``trials.json`` (who is
active, the best so far), ``metrics.json``, ``ledger.json`` (see `nnlib.run.ledger`), and last ``manifest.json`` with
the size and SHA-256 of each. The manifest is made by conditional create: of two drivers that commit the same round one
is refused, and a directory without a manifest is no round. Version 0 means initialised; a run loops from the newest
version to its last.

One commit may end a span of rounds (a long-lived job does not write every one of them): ``rounds/000100/`` then holds
the state after round 100 and, line by line, the metrics and the ledger of the rounds since the commit before; its
manifest says which was the ``first``. The lines are those that a commit a round would have written. The models of
trials' best rounds that fell within spans are in ``best.safetensors``. With error feedback ``residuals.safetensors``
has what rounding took from each worker's partials. Rounds within spans keep none, so no line of the ledger hashes it:
what the next rounds make of it is hashed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlib import FORMAT_VERSION
from nnlib.core.arrays import Vector
from nnlib.core.errors import MismatchError, StorageError
from nnlib.core.layout import Layout, ModelState
from nnlib.run.ledger import Facts, canonical, digest, ledger_line
from nnlib.run.model_file import named_arrays, pack, parse_json, read_model, unpack
from nnlib.run.round_metrics import RoundMetrics
from nnlib.storage import Storage

ROUNDS = "rounds"
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
STATE = "state.safetensors"
TRIALS = "trials.json"
METRICS = "metrics.json"
LEDGER = "ledger.json"
BEST = "best.safetensors"
RESIDUALS = "residuals.safetensors"
ALWAYS = {MODEL, TRIALS, METRICS, LEDGER}
"""Files that every commit has; those of `SOME` only some."""
SOME = {STATE, BEST, RESIDUALS}
MODELS = (MODEL, STATE, BEST, RESIDUALS)
"""What pruning deletes, in this order."""


@dataclass
class TrialState:
    """One trial after a round: its model, the state of its optimizers, and whether it goes on.

    ``weights`` and ``buffers`` have the model's layout; ``optimizer`` is the averaged local optimizer state (size 0 if
    reset); ``outer`` the outer step's. ``status`` is active, stopped (early) or diverged; ``round`` counts the rounds
    that went into ``weights``.
    """

    weights: Vector
    optimizer: Vector
    outer: Vector
    status: str = "active"
    round: int = 0
    best_round: int | None = None
    best_loss: float | None = None
    waited: int = 0
    reason: str | None = None
    buffers: tuple[Vector, ...] = ()

    @property
    def model(self) -> ModelState:
        """The weights and buffers."""
        return ModelState(self.weights, self.buffers)

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "round": self.round,
            "best_round": self.best_round,
            "best_loss": self.best_loss,
            "waited": self.waited,
            "reason": self.reason,
        }


@dataclass
class Checkpoint:
    """All trials after ``round`` rounds, the metrics of the job that led here, and what the ledger says of it.

    ``line`` is the round's line of the ledger, known once it is committed, deferred or loaded. ``best`` has, by trial,
    the model of a best round that no commit of its own keeps. ``residuals`` has, by trial, what error feedback keeps
    of all workers, shape (workers, size of a partial): only where it is about to be committed, or was asked for.
    """

    round: int
    trials: list[TrialState]
    metrics: RoundMetrics
    facts: Facts | None = None
    line: bytes | None = None
    best: dict[int, ModelState] = field(default_factory=dict)
    residuals: dict[int, Vector] = field(default_factory=dict)

    @property
    def active(self) -> list[int]:
        """The trials that go on."""
        return [index for index, trial in enumerate(self.trials) if trial.status == "active"]


class RoundStore:
    """The rounds of one run directory."""

    def __init__(self, storage: Storage, layouts: Sequence[Layout]) -> None:
        self.storage = storage
        self.layouts = list(layouts)
        self._models: list[int] | None = None  # rounds that keep their model, ascending; None until asked for
        self._commits: dict[int, int] = {}  # round -> the commit that holds it, as far as known
        self._known: dict[int, range] = {}  # commit -> its rounds: one that was seen whole is not looked for again
        self._metrics: dict[int, bytes] = {}  # of the rounds committed here: views need not read them back
        self._lines: tuple[int, str, list[bytes]] = (-1, "", [])  # the lines read last: (commit, file, lines)
        self._deferred: list[tuple[int, bytes, bytes]] = []  # (round, metrics, ledger) of rounds not yet committed

    def defer(self, checkpoint: Checkpoint, before: Checkpoint) -> None:
        """Chain the round that follows ``before``, but leave its writing to the next `commit`, which will not hold its
        model."""
        metrics = self._chained(checkpoint, before)[METRICS]
        self._metrics[checkpoint.round] = metrics
        assert checkpoint.line is not None
        self._deferred.append((checkpoint.round, metrics, checkpoint.line))

    def forget(self) -> None:
        """Drop what was deferred: the rounds since the newest commit will be done again."""
        for round_, _, _ in self._deferred:
            del self._metrics[round_]
        self._deferred.clear()

    def commit(self, checkpoint: Checkpoint, before: Checkpoint | None = None) -> None:
        """Write the round that follows ``before`` (None: round 0), and those deferred; visible, whole and durable when
        this returns.

        Raises `StorageError` if another driver has committed this round.
        """
        files = self._chained(checkpoint, before)
        metrics = files[METRICS]
        span = {"first": self._deferred[0][0]} if self._deferred else {}
        files[METRICS] = b"".join([metrics for _, metrics, _ in self._deferred] + [files[METRICS]])
        files[LEDGER] = b"".join([line for _, _, line in self._deferred] + [files[LEDGER]])
        if checkpoint.best:
            files[BEST] = pack(self._named(checkpoint.best))
        if checkpoint.residuals:
            files[RESIDUALS] = pack({str(index): rows for index, rows in checkpoint.residuals.items()})
        if self.storage.exists(self._at(checkpoint.round, MANIFEST)):
            raise self._fenced(checkpoint.round)  # before its files are written over
        manifest = {
            "format_version": FORMAT_VERSION,
            "round": checkpoint.round,
            **span,
            "files": {name: _entry(data) for name, data in sorted(files.items())},
        }
        named = {self._at(checkpoint.round, name): data for name, data in files.items()}
        if not self.storage.commit(named, self._at(checkpoint.round, MANIFEST), canonical(manifest)):
            raise self._fenced(checkpoint.round)
        self._metrics[checkpoint.round] = metrics
        self._known[checkpoint.round] = range(span.get("first", checkpoint.round), checkpoint.round + 1)
        self._deferred.clear()
        if self._models is not None:
            self._models.append(checkpoint.round)

    def _chained(self, checkpoint: Checkpoint, before: Checkpoint | None) -> dict[str, bytes]:
        """The round's files, its ledger line among them, but no manifest."""
        files = self._encoded(checkpoint)
        assert checkpoint.facts is not None
        checkpoint.line = ledger_line(checkpoint.facts, files, None if before is None else before.line)
        return {**files, LEDGER: checkpoint.line}

    def _fenced(self, round_: int) -> StorageError:
        return StorageError(
            f"round {round_} was committed by another driver: two drivers write this run",
            hint="let the other one finish, or train into another --run-dir",
            run=self.storage.root,
        )

    def require(self, round_: int) -> None:
        """Raise `StorageError` if a committed round is gone: nothing must be written into what is left of a run."""
        if not self.storage.exists(self._at(round_, MANIFEST)):
            raise StorageError(
                f"round {round_} is there no more: the run was moved or deleted while it trained",
                hint="put it back and go on with --resume; whole rounds are kept",
                run=self.storage.root,
            )

    def _encoded(self, checkpoint: Checkpoint) -> dict[str, bytes]:
        """The round's files but its ledger line and manifest; equal checkpoints, equal bytes."""
        arrays = self._named({index: trial.model for index, trial in enumerate(checkpoint.trials)})
        state: dict[str, Vector] = {}
        for index, trial in enumerate(checkpoint.trials):
            if trial.optimizer.size:
                state[f"{index}.optimizer"] = trial.optimizer
            if trial.outer.size:
                state[f"{index}.outer"] = trial.outer
        trials = {"format_version": FORMAT_VERSION, "trials": [trial.to_json() for trial in checkpoint.trials]}
        files = {
            MODEL: pack(arrays),
            TRIALS: canonical(trials),
            METRICS: canonical({"format_version": FORMAT_VERSION, **checkpoint.metrics.to_json()}),
        }
        if state:
            files[STATE] = pack(state)
        return files

    def _named(self, models: Mapping[int, ModelState]) -> dict[str, Vector]:
        """Trials' models under the names of a model file."""
        arrays: dict[str, Vector] = {}
        for index, model in models.items():
            arrays.update(named_arrays(index, model, self.layouts[index]))
        return arrays

    def spans(self) -> list[range]:
        """The rounds of each commit, ascending; the last of a span is the one whose state it holds."""
        found: list[range] = []
        for name in self.storage.names(ROUNDS):
            if not name.isdigit():
                continue
            round_, next_ = int(name), found[-1].stop if found else 0
            if round_ in self._known:
                found.append(self._known[round_])
            elif self.storage.exists(f"{ROUNDS}/{name}/{MANIFEST}"):
                # Only where rounds are left out is a manifest read: every look into a storage takes its time.
                found.append(range(round_ if round_ <= next_ else self._first(round_), round_ + 1))
                self._known[round_] = found[-1]
        self._commits = {round_: span[-1] for span in found for round_ in span}
        return found

    def _first(self, commit: int) -> int:
        try:
            return int(self.manifest(commit).get("first", commit))
        except MismatchError:
            return commit  # damaged: whoever reads it will say so

    def rounds(self) -> list[int]:
        """Committed rounds, ascending."""
        return [round_ for span in self.spans() for round_ in span]

    def newest(self) -> int:
        """The newest committed round; every run has round 0. Raises `MismatchError` if it was lost."""
        rounds = self.rounds()
        if not rounds:
            raise MismatchError(
                f"this run has lost its {ROUNDS}/: it has no model any more",
                hint="bring a copy of it back, or train anew",
                run=self.storage.root,
            )
        return rounds[-1]

    def manifest(self, round_: int) -> dict[str, Any]:
        file = f"{self.storage.root}/{self._at(round_, MANIFEST)}"
        data = parse_json(self.storage.read(self._at(round_, MANIFEST)), file, _without(round_))
        if data.get("format_version") != FORMAT_VERSION or data.get("round") != round_:
            raise MismatchError(f"not the manifest of round {round_} in format {FORMAT_VERSION}", file=file)
        files, first = data.get("files"), data.get("first", round_)
        if not isinstance(files, dict) or not ALWAYS <= set(files) <= ALWAYS | SOME:
            raise MismatchError("does not name the files of a round", file=file)
        if type(first) is not int or not 0 <= first <= round_:
            raise MismatchError("does not say which rounds it has", file=file)
        return data

    def has_model(self, round_: int) -> bool:
        """Whether the round keeps its model: `checkpoint.keep` deletes old ones, not their metrics, and of a span only
        the last round has one."""
        return self.storage.exists(self._at(round_, MODEL))

    def load(self, round_: int) -> Checkpoint:
        """Read a round back, checking every file against the manifest."""
        manifest = self.manifest(round_)
        arrays = unpack(self._checked(round_, MODEL, manifest), self._at(round_, MODEL))
        state = {}
        if STATE in manifest["files"]:
            state = unpack(self._checked(round_, STATE, manifest), self._at(round_, STATE))
        trials_file = parse_json(self._checked(round_, TRIALS, manifest), self._at(round_, TRIALS))
        entries = trials_file.get("trials", [])
        if len(entries) != len(self.layouts):
            raise MismatchError(
                f"has {len(entries)} trials, the run has {len(self.layouts)}", file=self._at(round_, TRIALS)
            )
        trials = []
        for index, (entry, layout) in enumerate(zip(entries, self.layouts, strict=True)):
            empty = np.empty(0, layout.dtype)
            model = read_model(index, arrays, layout, self._at(round_, MODEL))
            trials.append(
                TrialState(
                    model.vector,
                    state.get(f"{index}.optimizer", empty),
                    state.get(f"{index}.outer", empty),
                    buffers=model.buffers,
                    **entry,
                )
            )
        self._checked(round_, LEDGER, manifest)
        best = {}
        if BEST in manifest["files"]:
            best_arrays = unpack(self._checked(round_, BEST, manifest), self._at(round_, BEST))
            best = {
                index: read_model(index, best_arrays, layout, self._at(round_, BEST))
                for index, layout in enumerate(self.layouts)
                if any(name.startswith(f"{index}.") for name in best_arrays)
            }
        return Checkpoint(round_, trials, self.metrics(round_), line=self.ledger(round_), best=best)

    def residuals(self, round_: int) -> dict[int, Vector]:
        """`Checkpoint.residuals` of a commit; {} if it has none. Apart from `load`: only workers need them, and there
        may be many."""
        manifest = self.manifest(round_)
        if RESIDUALS not in manifest["files"]:
            return {}
        arrays = unpack(self._checked(round_, RESIDUALS, manifest), self._at(round_, RESIDUALS))
        return {int(name): rows for name, rows in arrays.items()}

    def model(self, trial: int, round_: int) -> ModelState:
        """A trial's model after a round that is kept: by the round's own commit, or as the trial's best round by the
        newest one. Raises `MismatchError` if it is not."""
        if self.has_model(round_):
            return self.load(round_).trials[trial].model
        newest = self.load(self.newest())
        if trial not in newest.best or newest.trials[trial].best_round != round_:
            raise MismatchError(f"no model of round {round_} is kept", trial=trial, run=self.storage.root)
        return newest.best[trial]

    def metrics(self, round_: int) -> RoundMetrics:
        """Read the metrics of one committed round."""
        file = self._at(self.commit_of(round_), METRICS)
        return RoundMetrics.from_json(parse_json(self._line(round_, METRICS), file), file)

    def recent_metrics(self, round_: int) -> RoundMetrics:
        """Read `metrics` for a view of the whole run: what was committed by this object is not read back for it."""
        line = self._metrics.get(round_)
        if line is None:
            return self.metrics(round_)
        return RoundMetrics.from_json(json.loads(line), self._at(round_, METRICS))

    def ledger(self, round_: int) -> bytes:
        """The ledger's line of one committed round."""
        return self._line(round_, LEDGER)

    def commit_of(self, round_: int) -> int:
        """The commit that holds a round: its own, unless it lies within a span."""
        if round_ not in self._commits and not self.storage.exists(self._at(round_, MANIFEST)):
            self.spans()
        return self._commits.get(round_, round_)

    def _line(self, round_: int, name: str) -> bytes:
        """A round's line of its commit's metrics or ledger."""
        commit = self.commit_of(round_)
        return self._lines_of(commit, name)[round_ - commit - 1]

    def _lines_of(self, commit: int, name: str) -> list[bytes]:
        """The lines of a commit's metrics or ledger; the latter as it stands, for `nnjobs verify` judges it."""
        if self._lines[:2] == (commit, name):
            return self._lines[2]
        manifest = self.manifest(commit)
        path = self._at(commit, name)
        data = self.storage.read(path) if name == LEDGER else self._checked(commit, name, manifest)
        lines = data.splitlines(keepends=True)
        expected = commit - int(manifest.get("first", commit)) + 1
        if expected == 1:
            return [data]
        if len(lines) != expected:
            raise MismatchError(f"has {len(lines)} lines for {expected} rounds", file=f"{self.storage.root}/{path}")
        self._lines = (commit, name, lines)  # whoever asks for one of its rounds asks for the next
        return lines

    def hashes(self, round_: int) -> dict[str, str]:
        """SHA-256 of what is stored of a round, by file name, to be compared with its line of the ledger; within a span
        that is its metrics."""
        found = {METRICS: digest(self._line(round_, METRICS))}
        if self.commit_of(round_) == round_:
            files = self.manifest(round_)["files"]
            found |= {name: entry["sha256"] for name, entry in files.items() if name in (MODEL, STATE, TRIALS)}
        return found

    def damaged(self, round_: int) -> list[str]:
        """Files of a commit that do not match its manifest; a pruned model is not missing."""
        found = []
        manifest = self.manifest(round_)
        pruned = not self.has_model(round_)
        for name, entry in manifest["files"].items():
            if pruned and name in MODELS:
                continue
            path = self._at(round_, name)
            if not self.storage.exists(path):
                found.append(f"{path} is missing")
            elif _entry(self.storage.read(path)) != entry:
                found.append(f"{path} does not match {MANIFEST}")
        return found

    def model_file(self, round_: int) -> str:
        """Address of the round's model, inside the run directory."""
        return self._at(round_, MODEL)

    def state_file(self, round_: int) -> str:
        return self._at(round_, STATE)

    def prune(self, keep: int | str, needed: set[int]) -> None:
        """Delete the models of old rounds; metrics stay. Kept are the newest ``keep``, those ``needed``, and round 0,
        from which any round can be recomputed."""
        if keep == "all":
            return
        if self._models is None:  # looked up once: else every round would ask the storage for all rounds before it
            # A kill between the deletions below leaves some of them alone.
            commits = [span[-1] for span in self.spans()]
            self._models = [
                round_ for round_ in commits if any(self.storage.exists(self._at(round_, name)) for name in MODELS)
            ]
        for round_ in self._models[: -int(keep)]:
            if round_ > 0 and round_ not in needed:
                for name in MODELS:
                    self.storage.delete(self._at(round_, name))
                self._models.remove(round_)

    def _checked(self, round_: int, name: str, manifest: dict[str, Any]) -> bytes:
        path = self._at(round_, name)
        data = self.storage.read(path) if self.storage.exists(path) else None
        if data is None or manifest["files"].get(name) != _entry(data):
            found = "is missing, its manifest names it" if data is None else "does not match its manifest"
            raise MismatchError(
                f"{found}: the file was altered or damaged", hint=_without(round_), file=f"{self.storage.root}/{path}"
            )
        return data

    @staticmethod
    def _at(round_: int, name: str) -> str:
        return f"{ROUNDS}/{round_:06d}/{name}"


def _without(round_: int) -> str:
    """What to do about a damaged round."""
    return f"delete {ROUNDS}/{round_:06d} to go on from the round before"


def _entry(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": digest(data)}
