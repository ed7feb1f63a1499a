"""The commits of a run: which rounds each holds, and the lines of metrics and ledger that it has of them."""

from __future__ import annotations

import json

from nnlib.core.errors import MismatchError
from nnlib.run.ledger import digest
from nnlib.run.manifest import (
    LEDGER,
    MANIFEST,
    METRICS,
    MODEL,
    MODELS,
    ROUNDS,
    STATE,
    TRIALS,
    FileFacts,
    Manifest,
    repair_hint,
    round_path,
)
from nnlib.run.model_file import parse_json
from nnlib.run.round_metrics import RoundMetrics
from nnlib.storage import Storage


class CommitLog:
    """Reads the commits of one run directory. What was read once is not looked up again."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._commits: dict[int, int] = {}  # round -> the commit that holds it, as far as known
        self._known: dict[int, range] = {}  # commit -> its rounds: one that was seen whole is not looked for again
        self._metrics: dict[int, bytes] = {}  # of the rounds made by this process
        self._lines: tuple[int, str, list[bytes]] = (-1, "", [])  # the lines read last: (commit, file, lines)

    def spans(self) -> list[range]:
        """List the rounds of each commit, ascending; the last of a span is the one whose state the commit holds."""
        spans: list[range] = []
        listed = {int(name) for name in self._storage.names(ROUNDS) if name.isdigit()}
        for round_ in sorted(listed | set(self._known)):
            next_ = spans[-1].stop if spans else 0
            if round_ in self._known:
                if round_ in listed or self.has_commit(round_):  # the listings of some storages lag behind
                    spans.append(self._known[round_])
            elif self.has_commit(round_):
                # Only where rounds are left out is a manifest read: every look into a storage takes its time.
                spans.append(range(round_ if round_ <= next_ else self._first(round_), round_ + 1))
                self._known[round_] = spans[-1]
        self._commits = {round_: span[-1] for span in spans for round_ in span}
        return spans

    def rounds(self) -> list[int]:
        """List the committed rounds, ascending."""
        return [round_ for span in self.spans() for round_ in span]

    def newest(self) -> int:
        """The newest committed round; every run has round 0. Raises `MismatchError` if it was lost."""
        rounds = self.rounds()
        if not rounds:
            raise MismatchError(
                f"this run has lost its {ROUNDS}/: it has no model any more",
                hint="bring a copy of it back, or train anew",
                run=self._storage.root,
            )
        return rounds[-1]

    def commit_of(self, round_: int) -> int:
        """The commit that holds a round: that of the round, unless the round lies within a span."""
        if round_ not in self._commits and not self.has_commit(round_):
            self.spans()
        return self._commits.get(round_, round_)

    def has_commit(self, round_: int) -> bool:
        """Whether a round has a commit."""
        return self._storage.exists(round_path(round_, MANIFEST))

    def manifest(self, round_: int) -> Manifest:
        """Read the manifest of a round's commit. Raises `MismatchError` if it is damaged."""
        path = round_path(round_, MANIFEST)
        return Manifest.parse(self._storage.read(path), round_, f"{self._storage.root}/{path}")

    def metrics(self, round_: int) -> RoundMetrics:
        """Read the metrics of one committed round."""
        file = round_path(self.commit_of(round_), METRICS)
        return RoundMetrics.from_json(parse_json(self._line(round_, METRICS), file), file)

    def recent_metrics(self, round_: int) -> RoundMetrics:
        """Read `metrics` for a view of the whole run: what this process has written is not read back for it."""
        line = self._metrics.get(round_)
        if line is None:
            return self.metrics(round_)
        return RoundMetrics.from_json(json.loads(line), round_path(round_, METRICS))

    def ledger(self, round_: int) -> bytes:
        """Read the ledger's line of one committed round."""
        return self._line(round_, LEDGER)

    def hashes(self, round_: int) -> dict[str, str]:
        """SHA-256 of what is stored of a round, by file name, to be compared with its line of the ledger; within a span
        that is its metrics."""
        hashes = {METRICS: digest(self._line(round_, METRICS))}
        if self.commit_of(round_) == round_:
            files = self.manifest(round_).files
            hashes |= {name: facts.sha256 for name, facts in files.items() if name in (MODEL, STATE, TRIALS)}
        return hashes

    def damaged(self, round_: int) -> list[str]:
        """Name the files of a commit that do not match its manifest; a pruned model is not missing."""
        problems = []
        pruned = not self._storage.exists(round_path(round_, MODEL))
        for name, facts in self.manifest(round_).files.items():
            if pruned and name in MODELS:
                continue
            path = round_path(round_, name)
            if not self._storage.exists(path):
                problems.append(f"{path} is missing")
            elif FileFacts.of(self._storage.read(path)) != facts:
                problems.append(f"{path} does not match {MANIFEST}")
        return problems

    def read(self, round_: int, name: str, manifest: Manifest) -> bytes:
        """Read a file of a commit. Raises `MismatchError` if it is not the one that the manifest names."""
        path = round_path(round_, name)
        data = self._storage.read(path) if self._storage.exists(path) else None
        if data is None or manifest.files.get(name) != FileFacts.of(data):
            problem = "is missing, its manifest names it" if data is None else "does not match its manifest"
            raise MismatchError(
                f"{problem}: the file was altered or damaged",
                hint=repair_hint(round_),
                file=f"{self._storage.root}/{path}",
            )
        return data

    def note_round(self, round_: int, metrics: bytes) -> None:
        """Keep the line of metrics of a round that this process has made."""
        self._metrics[round_] = metrics

    def forget_round(self, round_: int) -> None:
        """Undo `note_round`."""
        del self._metrics[round_]

    def note_commit(self, manifest: Manifest) -> None:
        """Keep which rounds a commit of this process holds."""
        self._known[manifest.round] = manifest.rounds

    def _first(self, commit: int) -> int:
        try:
            return self.manifest(commit).first
        except MismatchError:
            return commit  # damaged: reading the round raises the error

    def _line(self, round_: int, name: str) -> bytes:
        """A round's line of its commit's metrics or ledger."""
        commit = self.commit_of(round_)
        return self._lines_of(commit, name)[round_ - commit - 1]

    def _lines_of(self, commit: int, name: str) -> list[bytes]:
        """The lines of a commit's metrics or ledger; the ledger unchecked, for `nnjobs verify` judges it."""
        if self._lines[:2] == (commit, name):
            return self._lines[2]
        manifest = self.manifest(commit)
        path = round_path(commit, name)
        data = self._storage.read(path) if name == LEDGER else self.read(commit, name, manifest)
        lines = data.splitlines(keepends=True)
        expected = len(manifest.rounds)
        if expected == 1:
            return [data]
        if len(lines) != expected:
            raise MismatchError(f"has {len(lines)} lines for {expected} rounds", file=f"{self._storage.root}/{path}")
        self._lines = (commit, name, lines)  # the next call is often for another round of the same commit
        return lines
