"""Which rounds keep their models: `checkpoint.keep` deletes old ones, never their metrics or their ledger."""

from __future__ import annotations

from nnlib.run.commit_log import CommitLog
from nnlib.run.manifest import MODEL, MODELS, round_path
from nnlib.storage import Storage


class Retention:
    """Deletes the models of old commits of one run directory."""

    def __init__(self, storage: Storage, log: CommitLog) -> None:
        self._storage, self._log = storage, log
        self._kept: list[int] | None = None  # commits that keep their model, ascending; None until asked for

    def has_model(self, round_: int) -> bool:
        """Whether the round keeps its model; of a span only the last round ever has one."""
        return self._storage.exists(round_path(round_, MODEL))

    def note_commit(self, round_: int) -> None:
        """Count a new commit among those that keep their model."""
        if self._kept is not None:
            self._kept.append(round_)

    def prune(self, keep: int | str, needed: set[int]) -> None:
        """Delete the models of old rounds. Kept are the newest ``keep`` (or "all"), those ``needed``, and round 0, from
        which any round can be recomputed."""
        if keep == "all":
            return
        if self._kept is None:  # looked up once: else every round would ask the storage for all rounds before it
            # A kill between the deletions below leaves some of them alone.
            commits = [span[-1] for span in self._log.spans()]
            self._kept = [
                round_ for round_ in commits if any(self._storage.exists(round_path(round_, name)) for name in MODELS)
            ]
        for round_ in self._kept[: -int(keep)]:
            if round_ > 0 and round_ not in needed:
                self._storage.delete_files([round_path(round_, name) for name in MODELS])
                self._kept.remove(round_)
