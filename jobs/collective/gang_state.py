"""Who of a collective job's workers is missing: for people who wait for the group to meet."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.collective.job_folder import JobFolder
from nnlib.collective.rendezvous import list_generations, numbers_text

MOST_NAMED = 8
"""Missing workers whose last machine is named, at most: each costs two requests."""


class GangState:
    """Says for which workers the newest generation of a group waits."""

    def __init__(self, folder: JobFolder, workers: int) -> None:
        self._folder, self._workers = folder, workers
        self._hosts: dict[tuple[int, int], str | None] = {}

    def text(self, names: Sequence[str]) -> str:
        """Return who has come, and who is missing and where it was before; "" where the group is complete.

        ``names``: those of the folder's files. Raises `StorageError`.
        """
        generations = list_generations(names, self._workers)
        newest = max(generations, default=0)
        present = generations.get(newest, set())
        missing = sorted(set(range(self._workers)) - present)
        if not missing:
            return ""
        came = f"{len(present)} of {self._workers} workers have come"
        if newest < 2:
            return f"{came}; missing: {numbers_text(missing)}"
        named = ", ".join(self._named(worker, newest) for worker in missing[:MOST_NAMED])
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        return f"{came} to go on after a loss; missing: {named}{more}"

    def _named(self, worker: int, generation: int) -> str:
        """A worker with the machine that it was on in the generation before."""
        key = (generation - 1, worker)
        if key not in self._hosts:
            task = self._folder.task(*key)
            self._hosts[key] = None if task is None else task.host
        host = self._hosts[key]
        return str(worker) if host is None else f"{worker} (was on {host})"
