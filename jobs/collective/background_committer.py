"""What worker 0 of a group does besides training: it commits rounds and writes the status file.

A commit spans several rounds (`nnlib.run.round_store`): there is one every few rounds or seconds, so that a group
whose rounds take milliseconds does not wait for a disk or a name node. The lines of metrics and ledger are made for
every round. All of that happens in a thread in the background of the training; what a commit holds is decided by the
rounds alone. Which rounds are committed is decided before they are trained, because every worker contributes to a
commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from jobs.collective.status_file import CollectiveStatus, RoundReport, write_status
from nnlib.core.layout import ModelState
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.round_store import RoundStore
from nnlib.run.run_events import RoundEvent
from nnlib.run.spec import JobSpec
from nnlib.storage.traffic import PROCESS
from nnlib.training.round_events import phase_seconds, priced_requests, round_done, trials_stopped, worker_progress
from nnlib.training.round_observer import RoundTimes
from nnlib.training.round_result import TrialOutput

STATUS_SECONDS = 1.0
"""The status file is written at most this often."""
MAX_PENDING_ROUNDS = 2
"""Rounds that may wait for their commit; with more of them the training waits."""
MAX_STATUS_ROUNDS = 1000
"""Uncommitted rounds in a status, at most: the newest ones. The driver learns of the others from the commit."""


class BackgroundCommitter:
    """A `nnlib.training.round_observer.RoundObserver` that commits rounds in a thread. A context manager: it waits for
    the thread at its end; `finish` also raises the thread's error."""

    def __init__(
        self,
        spec: JobSpec,
        store: RoundStore,
        start: Checkpoint,
        *,
        generation: int = 1,
        require_lease: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``start``: the newest commit. ``require_lease`` is called before every commit and raises an error if another
        driver has taken the run over."""
        self._spec, self._store, self._generation = spec, store, generation
        self._require_lease, self._clock = require_lease, clock
        self._committed = self._decided = start.round
        self._committed_at = self._status_written_at = clock()
        self._best: dict[int, tuple[int | None, ModelState]] = {
            index: (start.trials[index].best_round, model) for index, model in start.best.items()
        }
        self._reports: list[RoundReport] = []
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._has_failed = False
        self._uploaded = PROCESS.uploaded_bytes

    def __enter__(self) -> BackgroundCommitter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown()  # what the group did before it broke is written

    def is_commit_due(self, round_: int) -> bool:
        """Return whether the next round, ``round_``, is to be committed. By the clock none is while the commit before
        is not done."""
        settings = self._spec.config.checkpoint
        if settings.rounds is not None:
            return round_ - self._decided >= settings.rounds
        if settings.seconds is None or self._decided > self._committed:
            return False
        return self._clock() - self._committed_at >= settings.seconds

    def on_round(
        self,
        before: Checkpoint,
        after: Checkpoint,
        outputs: Mapping[int, TrialOutput],
        times: RoundTimes,
        *,
        commit: bool,
        last: bool,
    ) -> None:
        """Queue a round for the thread. Raises what writing an earlier round raised."""
        if commit:
            self._decided = after.round
        self._pending.append(self._thread.submit(self._process, before, after, dict(outputs), times, commit, last))
        while self._pending and (len(self._pending) > MAX_PENDING_ROUNDS or self._pending[0].done()):
            self._pending.pop(0).result()

    def finish(self) -> None:
        """Wait until all rounds are written. Raises what writing one of them raised."""
        while self._pending:
            self._pending.pop(0).result()

    def _process(
        self,
        before: Checkpoint,
        after: Checkpoint,
        outputs: dict[int, TrialOutput],
        times: RoundTimes,
        commit: bool,
        last: bool,
    ) -> None:
        """Commit a round or keep its lines for the next commit; write the status if it is old."""
        if self._has_failed:
            return  # an earlier round is missing: later ones must not be committed
        self._has_failed = True
        for index, (old, new) in enumerate(zip(before.trials, after.trials, strict=True)):
            if new.best_round != old.best_round:  # only now is it known that the model before was the best so far
                self._best[index] = (new.best_round, old.model)
        self._reports.append(self._round_report(before, after, outputs, times))
        if commit:
            self._commit(before, after)
        else:
            self._store.defer(after, before)
        if last or self._clock() - self._status_written_at >= STATUS_SECONDS:
            self._write_status(after, outputs, times)
        self._has_failed = False

    def _commit(self, before: Checkpoint, after: Checkpoint) -> None:
        self._require_lease()
        self._store.require(self._committed)
        rounds = {trial.best_round for trial in after.trials if trial.best_round is not None}
        kept = {round_ for round_ in rounds if self._store.has_model(round_)}
        after.best = {
            index: model
            for index, (round_, model) in sorted(self._best.items())
            if round_ == after.trials[index].best_round and round_ not in kept
        }
        self._store.commit(after, before)
        self._store.prune(self._spec.config.checkpoint.keep, rounds)
        self._committed, self._committed_at = after.round, self._clock()

    def _round_report(
        self, before: Checkpoint, after: Checkpoint, outputs: Mapping[int, TrialOutput], times: RoundTimes
    ) -> RoundReport:
        """The bytes that a commit uploads are counted to the round after it."""
        uploaded, self._uploaded = PROCESS.uploaded_since(self._uploaded)
        return RoundReport(
            round_done(self._spec.config, after.metrics, times.seconds),
            tuple(trials_stopped(self._spec, before, after)),
            RoundEvent(
                round=after.round,
                seconds=round(times.seconds, 4),
                exchange_seconds=round(times.exchange, 4),
                worker_seconds=phase_seconds(outputs),
                shuffled_bytes=self._spec.workers * times.sent,
                uploaded_bytes=uploaded,
                requests=priced_requests(outputs),
            ),
        )

    def _write_status(self, after: Checkpoint, outputs: Mapping[int, TrialOutput], times: RoundTimes) -> None:
        status = CollectiveStatus(
            generation=self._generation,
            round=after.round,
            seconds=times.seconds,
            committed=self._committed,
            rounds=tuple(self._reports[-MAX_STATUS_ROUNDS:]),
            workers=worker_progress(outputs, times.seconds),
        )
        write_status(self._store.storage, status)
        self._reports = [report for report in self._reports if report.done.round > self._committed]
        self._status_written_at = self._clock()
