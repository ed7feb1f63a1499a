"""The iterative driver: restore or initialise, then round after round: run the job, take the outer step, commit.

All randomness is a function of the round, so a run that was killed goes on from its newest round to the bits of a run
never stopped.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from jobs.driver.final_scores import final_scores, result_of
from jobs.driver.round_overhead import with_round_cost
from jobs.driver.run_setup import (
    NewRun,
    claim,
    create_run,
    initial_states,
    prepare,
    refuse_overlap_of_run,
    reopen,
    warm_start,
    with_targets_of,
)
from jobs.driver.status_keeper import StatusKeeper
from jobs.mapreduce.launcher import TASK_MODULES, RoundLauncher, model_files
from jobs.runners.hadoop.kerberos_login import use_keytab
from jobs.runners.local.chaos import Chaos
from nnlib.config.code_files import with_missing_hashes
from nnlib.config.code_trust import trust_code_of
from nnlib.config.identity import epochs_may_grow
from nnlib.config.schema import Config
from nnlib.core.arrays import Vector
from nnlib.core.errors import ConfigError, MismatchError
from nnlib.core.events import (
    Event,
    Listener,
    Note,
    PhaseStarted,
    RunDone,
    RunStarted,
    Waiting,
    WorkerProgress,
    ignore,
)
from nnlib.core.layout import ModelState
from nnlib.core.numerics import blas_threads
from nnlib.core.run_result import RunResult
from nnlib.core.waiting import waits_reported_to
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.directory import EVENTS, GROUP, LOG, METRICS_VIEW, RunDirectory
from nnlib.run.final_result import FinalResult
from nnlib.run.journal import Journal
from nnlib.run.lease import RunLock
from nnlib.run.metrics_view import metrics_lines, view_text
from nnlib.run.round_length import round_count
from nnlib.run.round_store import RoundStore
from nnlib.run.run_events import RoundEvent, RunEvent, StartEvent
from nnlib.run.spec import JobSpec, initial_frozen, with_frozen
from nnlib.storage import describe_requests
from nnlib.storage.traffic import PROCESS, Price
from nnlib.tracking import tracked
from nnlib.training.advance import advance, epochs_left
from nnlib.training.round_events import (
    phase_seconds,
    priced_requests,
    round_done,
    trials_stopped,
    worker_progress,
)
from nnlib.training.round_result import TrialOutput


def train(
    config: Config,
    *,
    resume: bool = False,
    start_from: str | Sequence[Vector | ModelState] | None = None,
    listen: Listener = ignore,
    chaos: Chaos | None = None,
) -> RunResult:
    """Train all trials of a configuration; returns their scores and where the model lies.

    ``resume`` goes on with the run in ``config.run_dir`` (or starts it, if it never got so far); ``start_from``
    (``RUN`` or ``RUN@ROUND``) takes the first weights from another run, or is the numbers themselves, one
    flat vector a trial, or with buffers; ``chaos`` injects faults into local tasks, which must not change the result.
    Raises the typed errors of `nnlib.core.errors`; a diverged trial is no exception but listed under ``diverged`` in
    the result.
    """
    started = time.monotonic()
    if resume and config.run_dir is None:
        raise ConfigError("to resume, say which run", hint="add --run-dir RUN", key="run_dir")
    if chaos is not None:
        chaos.check(config)
    use_keytab(config.runtime)
    config = with_missing_hashes(config)
    with ExitStack() as stack:
        stack.enter_context(blas_threads(config.runtime.blas_threads))
        listen = stack.enter_context(tracked(config, listen))
        new = stack.enter_context(NewRun())  # first, so that it ends last: when the lock is released
        if resume and RunDirectory(str(config.run_dir)).exists():
            run = RunDirectory.open(str(config.run_dir))
            stack.enter_context(RunLock(run.storage))
            run.storage.sweep()
            spec, plans = reopen(run, config)
            is_new = False
        else:
            refuse_overlap_of_run(config, start_from)
            trust_code_of(config)
            spec, plans = prepare(with_targets_of(config, start_from), listen, chaos)
            states = initial_states(spec)
            frozen = [initial_frozen(spec, trial) for trial in spec.trials]
            parent = None if start_from is None else warm_start(spec, states, frozen, start_from)
            spec = with_frozen(spec, frozen)
            spec = with_round_cost(spec, plans, states, listen)
            run = claim(config, stack)
            create_run(run, spec, states, parent)
            new.directory = run
            is_new = True
        keeper = stack.enter_context(StatusKeeper(run.storage, spec.config, is_new=is_new))
        driver = Driver(run, listen, keeper)
        stack.callback(driver.close)
        stack.enter_context(waits_reported_to(lambda wait: driver.notify(Waiting(*wait))))
        site = stack.enter_context(
            RoundLauncher(
                spec,
                plans,
                driver.notify,
                record=driver.record_event,
                chaos=chaos,
                run=run.address,
                modules=_task_modules(config),
            )
        )
        new.has_jobs = True
        keeper.attach(site.session)
        return driver.run_to_end(site, started)


def _task_modules(config: Config) -> Sequence[str]:
    """What the tasks of the run import."""
    if config.sync.mode != "collective":
        return TASK_MODULES
    from jobs.collective import request  # late: rounds mode needs nothing of it

    return request.TASK_MODULES


class Driver:
    """Drives one run: keeps its journals and notifies its listener of what happens."""

    def __init__(self, run: RunDirectory, listen: Listener, keeper: StatusKeeper) -> None:
        """``keeper`` shows the run's status; it and ``listen`` get every event."""
        self.directory = run
        self._listen, self._keeper = listen, keeper
        self._log = Journal(run.storage, LOG)
        self._events = Journal(run.storage, EVENTS)
        self._viewed = time.monotonic()
        self._viewed_rounds = 0
        self._uploaded = PROCESS.uploaded_bytes
        self._requests: Counter[Price] = Counter()
        self._notifying = threading.RLock()

    def notify(self, event: Event) -> None:
        """Pass an event on, and keep a line of it in the run's log. Called from any thread."""
        with self._notifying:
            if not isinstance(event, Waiting) or event.what:
                self._log.line(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {event}")
            self._keeper(event)
            self._listen(event)

    def record_event(self, event: RunEvent) -> None:
        """Keep an event in the run's journal: what may differ between two runs of the same bits. Called from any
        thread."""
        with self._notifying:
            if isinstance(event, RoundEvent):
                self._requests.update(event.requests or {})
            self._events.record(event)

    def note_group(self, committed: int, workers: Sequence[WorkerProgress]) -> None:
        """Note for the run's status what a collective job reports: its newest commit, and its workers."""
        self._keeper.note_commit(committed)
        self._keeper.note_workers(workers)

    def close(self) -> None:
        """Write what the journals still hold."""
        self._log.flush()
        self._events.flush()

    def run_to_end(self, site: RoundLauncher, started: float) -> RunResult:
        """From the newest committed round to the last, then the final scores."""
        spec, store = site.spec, self.directory.rounds(site.spec)
        rounds = round_count(spec.config)
        checkpoint = store.load(store.newest())
        finished = self.directory.final()
        if checkpoint.round:
            self._mend_view(store, finished)
        if finished is not None:
            self.notify(Note("this run is finished; nothing to do"))
            return result_of(finished, self.directory.address, time.monotonic() - started)
        self._announce(site, checkpoint)
        if checkpoint.round:
            _prune(store, spec, checkpoint)  # a driver that was killed after its last commit has not
        outputs = None
        if spec.config.sync.mode == "collective":
            self.directory.storage.delete(GROUP)  # of a job whose driver died
        if spec.config.sync.mode == "collective" and epochs_left(spec, checkpoint):
            from jobs.collective.supervisor import run_collective  # late: rounds mode needs nothing of it

            outputs = run_collective(self, site, store, checkpoint)
            checkpoint = store.load(store.newest())
        while epochs := epochs_left(spec, checkpoint):
            checkpoint = self._round(site, store, checkpoint, epochs)
        if outputs is None:
            self.notify(PhaseStarted("final", "scoring the final models"))
        final, arrays = final_scores(site, store, checkpoint, rounds, outputs)
        self._write_view(store, final)
        self.directory.finish(final, arrays)  # last: with it the run is finished
        if summary := site.session.summary():
            self.notify(Note(summary))
        self._requests.update(priced_requests({}) or {})
        if charged := describe_requests(self._requests):
            self.notify(Note(charged))
        result = result_of(final, self.directory.address, time.monotonic() - started)
        self.notify(RunDone(result))
        return result

    def _round(self, site: RoundLauncher, store: RoundStore, before: Checkpoint, epochs: range) -> Checkpoint:
        """One round: job, outer step, commit."""
        self._keeper.cancellation.require_none()
        began = time.monotonic()
        active = [index for index, trial in enumerate(before.trials) if trial.status == "active"]
        outputs = site.run("train", before.round, active, *model_files(store, before), epochs=epochs)
        job_seconds = time.monotonic() - began
        checkpoint = advance(site.spec, before, outputs)
        store.require(before.round)
        store.commit(checkpoint, before)
        for stopped in trials_stopped(site.spec, before, checkpoint):
            self.notify(stopped)
        _prune(store, site.spec, checkpoint)
        seconds = time.monotonic() - began
        self._record(checkpoint.round, outputs, seconds, job_seconds, site.shuffled_bytes(active))
        self._keeper.note_commit(checkpoint.round)
        self._keeper.note_workers(worker_progress(outputs, job_seconds))
        self.notify(round_done(site.spec.config, checkpoint.metrics, seconds))
        self.renew_view(store)
        return checkpoint

    def renew_view(self, store: RoundStore) -> None:
        """Write the view of the metrics anew, if it is old."""
        storage, waited = self.directory.storage, time.monotonic() - self._viewed
        if waited < storage.journal_seconds:
            return
        if storage.journal_is_due(waited, self._viewed_rounds, len(store.rounds()) - self._viewed_rounds):
            self._write_view(store, None)

    def _announce(self, site: RoundLauncher, first: Checkpoint) -> None:
        spec = site.spec
        config, trial = spec.config, spec.trials[0]
        self.record_event(
            StartEvent(
                round=first.round,
                runner=config.runtime.runner,
                slots=site.slots,
                host=platform.node(),
                process=os.getpid(),
                uploaded_bytes=self._sent(),
            )
        )
        self.notify(
            RunStarted(
                name=config.name,
                run_dir=self.directory.address,
                runner=config.runtime.runner,
                workers=config.workers,
                trials=len(spec.trials),
                first_round=first.round,
                first_epoch=first.metrics.epoch,
                rounds=round_count(config),
                epochs=config.train.epochs,
                parameters=spec.model(trial).layout.size,
                train_rows=spec.train_rows(trial),
                test_rows=sum(trial.test_rows),
                epochs_may_grow=epochs_may_grow(config),
            )
        )

    def _record(
        self, round_: int, outputs: dict[int, TrialOutput], seconds: float, job_seconds: float, shuffled_bytes: int
    ) -> None:
        self.record_event(
            RoundEvent(
                round=round_,
                seconds=round(seconds, 4),
                job_seconds=round(job_seconds, 4),
                worker_seconds=phase_seconds(outputs),
                shuffled_bytes=shuffled_bytes,
                uploaded_bytes=self._sent(),
                requests=priced_requests(outputs),
            )
        )

    def _sent(self) -> int:
        """Bytes uploaded since this was asked last."""
        sent, self._uploaded = PROCESS.uploaded_since(self._uploaded)
        return sent

    def _write_view(self, store: RoundStore, final: FinalResult | None) -> None:
        rounds = store.rounds()
        self.directory.storage.write(METRICS_VIEW, view_text(metrics_lines(store, rounds, final)).encode())
        self._viewed, self._viewed_rounds = time.monotonic(), len(rounds)

    def _mend_view(self, store: RoundStore, final: FinalResult | None) -> None:
        """Write the view of the metrics anew where it is not that of the rounds: a driver that was killed may have left
        it behind them."""
        storage = self.directory.storage
        with contextlib.suppress(MismatchError):  # a damaged old round: `nnjobs verify` names it, training needs it not
            text = view_text(metrics_lines(store, store.rounds(), final)).encode()
            if not storage.exists(METRICS_VIEW) or storage.read(METRICS_VIEW) != text:
                storage.write(METRICS_VIEW, text)


def _prune(store: RoundStore, spec: JobSpec, newest: Checkpoint) -> None:
    """Delete the models of rounds that are neither among the newest nor any trial's best."""
    best = {trial.best_round for trial in newest.trials if trial.best_round is not None}
    store.prune(spec.config.checkpoint.keep, best)
