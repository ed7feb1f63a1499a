"""What worker 0 of a group does besides training: commit rounds, and tell the driver how things stand.

Commits are spans (`nnlib.run.checkpoint`): one every so many rounds or seconds, so that a group whose rounds take
milliseconds does not wait for a disk or a name node. The lines of metrics and ledger are made for every round. All that
happens in a thread beside the training; what a commit holds is decided by the rounds alone. Which rounds are committed
is decided before they are trained: all workers give their part of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.core.arrays import Vector
from nnlib.run.checkpoint import Checkpoint, RoundStore
from nnlib.run.directory import GROUP
from nnlib.run.spec import JobSpec
from nnlib.storage.upload_counter import UPLOADED
from nnlib.training.round_events import phase_seconds, round_done, trials_stopped
from nnlib.training.round_observer import RoundTimes
from nnlib.training.round_result import TrialOutput

STATUS = f"{GROUP}/status.json"
STATUS_SECONDS = 1.0
"""The status is written at most this often."""
WAITING = 2
"""Rounds that may wait for their commit: training holds still until there are fewer."""
TOLD = 1000
"""Uncommitted rounds that a status tells of, at most: the newest ones. What it leaves out, the commit tells."""


class Recorder:
    """`nnlib.training.round_observer.Observer` that commits. A context manager; `finish` tells the last commit's
    outcome."""

    def __init__(
        self,
        spec: JobSpec,
        store: RoundStore,
        start: Checkpoint,
        *,
        generation: int = 1,
        may_write: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``start`` is the newest commit. ``may_write`` is called before every commit and raises if the run has become
        another driver's."""
        self._spec, self._store, self._generation = spec, store, generation
        self._may_write, self._clock = may_write, clock
        self._committed = self._decided = start.round
        self._committed_at = self._told_at = clock()
        self._best: dict[int, tuple[int | None, Vector]] = {
            index: (start.trials[index].best_round, weights) for index, weights in start.best.items()
        }
        self._facts: list[dict[str, Any]] = []
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[Future[None]] = []
        self._failed = False
        self._uploaded = UPLOADED.sum

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown()  # what the group did before it broke is done

    def due(self, round_: int) -> bool:
        """Whether the round that comes next is to be committed. None is by the clock while an earlier one still is."""
        settings = self._spec.config.checkpoint
        if settings.rounds is not None:
            return round_ - self._decided >= settings.rounds
        if settings.seconds is None or self._decided > self._committed:
            return False
        return self._clock() - self._committed_at >= settings.seconds

    def round(
        self,
        before: Checkpoint,
        after: Checkpoint,
        outputs: Mapping[int, TrialOutput],
        times: RoundTimes,
        *,
        commit: bool,
        last: bool,
    ) -> None:
        """Take a round; raises what writing an earlier one raised."""
        if commit:
            self._decided = after.round
        self._waiting.append(self._thread.submit(self._take, before, after, dict(outputs), times, commit, last))
        while self._waiting and (len(self._waiting) > WAITING or self._waiting[0].done()):
            self._waiting.pop(0).result()

    def finish(self) -> None:
        while self._waiting:
            self._waiting.pop(0).result()

    def _take(
        self,
        before: Checkpoint,
        after: Checkpoint,
        outputs: dict[int, TrialOutput],
        times: RoundTimes,
        commit: bool,
        last: bool,
    ) -> None:
        if self._failed:
            return  # a round was lost: those behind it must not be committed
        self._failed = True
        for index, (old, new) in enumerate(zip(before.trials, after.trials, strict=True)):
            if new.best_round != old.best_round:  # only now is it known that the model before was the best so far
                self._best[index] = (new.best_round, old.weights)
        self._facts.append(self._facts_of(before, after, outputs, times))
        if commit:
            self._commit(before, after)
        else:
            self._store.defer(after, before)
        if last or self._clock() - self._told_at >= STATUS_SECONDS:
            self._tell(after, outputs, times)
        self._failed = False

    def _commit(self, before: Checkpoint, after: Checkpoint) -> None:
        self._may_write()
        self._store.require(self._committed)
        rounds = {trial.best_round for trial in after.trials if trial.best_round is not None}
        kept = {round_ for round_ in rounds if self._store.has_model(round_)}
        after.best = {
            index: weights
            for index, (round_, weights) in sorted(self._best.items())
            if round_ == after.trials[index].best_round and round_ not in kept
        }
        self._store.commit(after, before)
        self._store.prune(self._spec.config.checkpoint.keep, rounds)
        self._committed, self._committed_at = after.round, self._clock()

    def _facts_of(
        self, before: Checkpoint, after: Checkpoint, outputs: Mapping[int, TrialOutput], times: RoundTimes
    ) -> dict[str, Any]:
        """What the driver tells of a round, and keeps of it in the run's journal. A commit's bytes are told with the
        round behind it."""
        uploaded, self._uploaded = UPLOADED.since(self._uploaded)
        return {
            "done": asdict(round_done(self._spec.config, after.metrics, times.seconds)),
            "stopped": [asdict(event) for event in trials_stopped(self._spec, before, after)],
            "journal": {
                "round": after.round,
                "seconds": round(times.seconds, 4),
                "exchange_seconds": round(times.exchange, 4),
                "worker_seconds": phase_seconds(outputs),
                "shuffled_bytes": self._spec.workers * times.sent,
                "uploaded_bytes": uploaded,
            },
        }

    def _tell(self, after: Checkpoint, outputs: Mapping[int, TrialOutput], times: RoundTimes) -> None:
        """Write the status: rounds since the last commit, and every worker's part in the newest one."""
        status = {
            "format_version": FORMAT_VERSION,
            "generation": self._generation,
            "round": after.round,
            "seconds": times.seconds,
            "committed": self._committed,
            "rounds": self._facts[-TOLD:],
            "workers": _workers(self._spec.workers, outputs, times),
        }
        self._store.storage.write(STATUS, json.dumps(status).encode() + b"\n")
        self._facts = [facts for facts in self._facts if facts["journal"]["round"] > self._committed]
        self._told_at = self._clock()


def _workers(workers: int, outputs: Mapping[int, TrialOutput], times: RoundTimes) -> list[dict[str, Any]]:
    """Each worker's training loss and examples a second, and for how long of the round it waited for others: all but
    its own work."""
    told = []
    for worker in range(workers):
        records = [output.records[worker] for output in outputs.values()]
        trained = [record for record in records if "losses" in record]
        busy = sum(sum(record["seconds"].values()) for record in records)
        rows = sum(record["examples"] * (record["evaluations"] or len(record["losses"])) for record in trained)
        training = sum(record["seconds"]["train"] for record in trained)
        told.append(
            {
                "worker": worker,
                "loss": sum(record["losses"][-1] for record in trained) / len(trained) if trained else None,
                "examples_per_second": rows / training if training > 0.0 else None,
                "wait": max(0.0, times.seconds - busy),
            }
        )
    return told


def read_status(data: bytes) -> dict[str, Any] | None:
    """A status as written above; None for anything else (it only tells, so it need not be there)."""
    try:
        status = json.loads(data)
    except ValueError:
        return None
    return status if isinstance(status, dict) and status.get("format_version") == FORMAT_VERSION else None
