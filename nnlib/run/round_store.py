"""Rounds on disk: a round is committed whole or it does not exist.

``rounds/000007/`` holds the state after 7 rounds: ``model.safetensors`` (each trial's parameters and buffers by name),
``state.safetensors`` (outer steps' and averaged optimizers' vectors; absent if there are none), ``trials.json`` (who is
active, the best so far), ``metrics.json``, ``ledger.json`` (see `nnlib.run.ledger`), and last ``manifest.json`` with
the size and SHA-256 of each. The manifest is made by conditional create: of two drivers that commit the same round one
is refused, and a directory without a manifest is no round. Version 0 means initialised; a run loops from the newest
version to its last.

One commit may end a span of rounds (a long-lived job does not write every one of them): ``rounds/000100/`` then holds
the state after round 100 and, line by line, the metrics and the ledger of the rounds since the commit before; its
manifest names the ``first`` of them. The lines are those that a commit a round would have written. The models of
trials' best rounds that fell within spans are in ``best.safetensors``. With error feedback ``residuals.safetensors``
has what rounding took from each worker's partials, with `train.optimizer_state: keep` ``optimizers.safetensors`` has
each worker's optimizer state. Rounds within spans keep neither, so no line of the ledger hashes them: what the next
rounds make of them is hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nnlib.core.arrays import Array
from nnlib.core.errors import MismatchError, StorageError
from nnlib.core.layout import Layout, ModelState
from nnlib.run.checkpoint import Checkpoint, KeptState, commit_files, read_best, read_trials, round_files
from nnlib.run.commit_log import CommitLog
from nnlib.run.ledger import canonical, digest, ledger_line
from nnlib.run.manifest import BEST, KEPT, LEDGER, MANIFEST, METRICS, MODEL, STATE, TRIALS, Manifest, round_path
from nnlib.run.model_file import unpack
from nnlib.run.retention import Retention
from nnlib.storage import Storage


class RoundStore:
    """Writes and loads the rounds of one run directory. ``log`` reads their metrics and their ledger."""

    def __init__(self, storage: Storage, layouts: Sequence[Layout] | Callable[[], Sequence[Layout]]) -> None:
        """``layouts``: of each trial's model; a function is called when a model is read or written first: metrics and
        ledger need none."""
        self.storage = storage
        self._layouts = layouts
        self.log = CommitLog(storage)
        self._retention = Retention(storage, self.log)
        self._deferred: list[tuple[int, bytes, bytes]] = []  # (round, metrics, ledger) of rounds not yet committed

    @cached_property
    def layouts(self) -> Sequence[Layout]:
        """The layout of each trial's model."""
        return self._layouts() if callable(self._layouts) else self._layouts

    def defer(self, checkpoint: Checkpoint, before: Checkpoint) -> None:
        """Chain the round that follows ``before``, but leave its writing to the next `commit`, which will not hold its
        model."""
        metrics = self._chained(checkpoint, before)[METRICS]
        assert checkpoint.line is not None
        self.log.note_round(checkpoint.round, metrics)
        self._deferred.append((checkpoint.round, metrics, checkpoint.line))

    def forget(self) -> None:
        """Drop what was deferred: the rounds since the newest commit will be done again."""
        for round_, _, _ in self._deferred:
            self.log.forget_round(round_)
        self._deferred.clear()

    def commit(self, checkpoint: Checkpoint, before: Checkpoint | None = None) -> None:
        """Write the round that follows ``before`` (None: round 0), and those deferred; visible, whole and durable when
        this returns.

        Raises `StorageError` if another driver has committed this round.
        """
        round_, files = checkpoint.round, self._chained(checkpoint, before)
        metrics = files[METRICS]
        first = self._deferred[0][0] if self._deferred else round_
        files[METRICS] = b"".join([line for _, line, _ in self._deferred] + [metrics])
        files[LEDGER] = b"".join([line for _, _, line in self._deferred] + [files[LEDGER]])
        files |= commit_files(checkpoint, self.layouts)
        if self.log.has_commit(round_):
            raise self._fenced(round_)  # before its files are written over
        manifest = Manifest.of(round_, first, files)
        named = {round_path(round_, name): data for name, data in files.items()}
        if not self.storage.commit(named, round_path(round_, MANIFEST), canonical(manifest.to_json())):
            raise self._fenced(round_)
        self.log.note_round(round_, metrics)
        self.log.note_commit(manifest)
        self._retention.note_commit(round_)
        self._deferred.clear()

    def require(self, round_: int) -> None:
        """Raise `StorageError` if a committed round is gone: nothing must be written into what is left of a run."""
        if not self.log.has_commit(round_):
            raise StorageError(
                f"round {round_} is there no more: the run was moved or deleted while it trained",
                hint="put it back and go on with --resume; whole rounds are kept",
                run=self.storage.root,
            )

    def load(self, round_: int) -> Checkpoint:
        """Read a round back, checking every file against the manifest. Raises `MismatchError`."""
        manifest, folder = self.log.manifest(round_), round_path(round_, "").rstrip("/")
        names = [name for name in (MODEL, STATE, TRIALS, LEDGER, BEST) if name in manifest.files]
        files = {name: self.log.read(round_, name, manifest) for name in names}
        trials = read_trials(files, self.layouts, folder)
        best = read_best(files[BEST], self.layouts, folder) if BEST in files else {}
        return Checkpoint(round_, trials, self.log.metrics(round_), line=self.log.ledger(round_), best=best)

    def kept(self, round_: int) -> KeptState:
        """Read `Checkpoint.kept` of a commit. Apart from `load`: only workers need it, and it may be large."""
        manifest = self.log.manifest(round_)
        return KeptState(*(self._kept(round_, name, manifest) for name in KEPT))

    def _kept(self, round_: int, file: str, manifest: Manifest) -> dict[int, Array]:
        if file not in manifest.files:
            return {}
        arrays = unpack(self.log.read(round_, file, manifest), round_path(round_, file))
        return {int(name): rows for name, rows in arrays.items()}

    def model(self, trial: int, round_: int) -> ModelState:
        """Read a trial's model after a round that is kept: by the round's own commit, or as the trial's best round by
        the newest one. Raises `MismatchError` if it is not."""
        if self.has_model(round_):
            return self.load(round_).trials[trial].model
        newest = self.load(self.newest())
        if trial not in newest.best or newest.trials[trial].best_round != round_:
            raise MismatchError(f"no model of round {round_} is kept", trial=trial, run=self.storage.root)
        return newest.best[trial]

    def rounds(self) -> list[int]:
        """List the committed rounds, ascending."""
        return self.log.rounds()

    def newest(self) -> int:
        """The newest committed round; every run has round 0. Raises `MismatchError` if it was lost."""
        return self.log.newest()

    def has_model(self, round_: int) -> bool:
        """See `nnlib.run.retention.Retention.has_model`."""
        return self._retention.has_model(round_)

    def prune(self, keep: int | str, needed: set[int]) -> None:
        """See `nnlib.run.retention.Retention.prune`."""
        self._retention.prune(keep, needed)

    def _chained(self, checkpoint: Checkpoint, before: Checkpoint | None) -> dict[str, bytes]:
        """The round's files, its ledger line among them, but no manifest."""
        files = round_files(checkpoint, self.layouts)
        assert checkpoint.facts is not None
        checkpoint.line = ledger_line(checkpoint.facts, files, None if before is None else before.line)
        return {**files, LEDGER: checkpoint.line}

    def _fenced(self, round_: int) -> StorageError:
        return StorageError(
            f"round {round_} was committed by another driver: two drivers write this run",
            hint="let the other one finish, or train into another --run-dir",
            run=self.storage.root,
        )


@dataclass(frozen=True)
class LedgerRoot:
    """The newest round, and the hash of its line of the ledger: lines are chained, so it stands for the whole
    ledger."""

    round: int
    sha256: str

    @classmethod
    def of(cls, store: RoundStore) -> LedgerRoot:
        """Compute the root of a run's ledger as it is now."""
        round_ = store.newest()
        return cls(round_, digest(store.log.ledger(round_)))

    def to_json(self) -> dict[str, Any]:
        """Return the root as JSON-able data."""
        return {"round": self.round, "sha256": self.sha256}
