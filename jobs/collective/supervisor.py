"""The driver's part in collective mode: start the one job and supervise it until it ends.

Worker 0 of the job commits the rounds. The driver holds the run's lease, reports the progress
(`jobs.collective.progress`) and ends tasks that hang (`jobs.collective.failure_detector`).
"""

from __future__ import annotations

import contextlib
import secrets

from jobs.collective.job_folder import JobFiles
from jobs.collective.progress import EventSink, ProgressReporter
from jobs.collective.request import collective_request
from jobs.mapreduce.launcher import RoundLauncher
from nnlib.config.runners import runner_named
from nnlib.core.errors import JobError, NnjobsError, StorageError
from nnlib.core.events import Note
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.directory import GROUP
from nnlib.run.lease import current_lease
from nnlib.run.manifest import ROUNDS
from nnlib.run.round_store import RoundStore
from nnlib.training.round_result import TrialOutput


def run_collective(
    events: EventSink, launcher: RoundLauncher, store: RoundStore, start: Checkpoint
) -> dict[int, TrialOutput] | None:
    """Train from the newest commit to the last round; return the scores of the last models by trial.

    Returns None where not all workers came to run at once and ``sync.gang_fallback`` says to go on in rounds mode: from
    the newest commit, which may be a later one by then. Raises `JobError` where the job failed.
    """
    spec, run = launcher.spec, store.storage
    trials = range(len(spec.trials))
    folder = f"{GROUP}/{secrets.token_hex(4)}"
    files = JobFiles(run.root, folder, current_lease(run), launcher.session.loss_seconds)
    detector = None
    if spec.workers > 1 and not runner_named(spec.config.runtime.runner).in_one_process:
        # Late: pyzmq takes 0.1 s to import, and a group in one process does not need it.
        from jobs.collective.failure_detector import FailureDetector

        detector = FailureDetector(events, launcher, run, files.folder)
    if detector is None:
        progress = ProgressReporter(events, spec, store, start, None)
    else:
        found = detector
        progress = ProgressReporter(events, spec, store, start, found.check, lambda: found.missing)
    was_undisturbed = False
    try:
        with progress.polling():
            request = collective_request(launcher.request("collective", start.round, trials), files)
            outputs = launcher.launch(request, trials)
        was_undisturbed = progress.generation == 1
        return outputs
    except KeyboardInterrupt:
        with contextlib.suppress(NnjobsError):
            every = spec.config.checkpoint.every
            events.notify(
                Note(f"the newest commit is of round {store.newest()} (checkpoint.every: {every})", "warning")
            )
        raise
    except JobError as failed:
        error = failed if detector is None or detector.error is None else detector.error
        if "slots" not in error.where or spec.config.sync.gang_fallback != "rounds":
            raise error from None
        events.notify(Note(f"{error.message}; going on in rounds mode from round {store.newest()}", "warning"))
        return None
    finally:
        # An unreachable storage must not hide how the job ended; the next driver of the run deletes the folder, too.
        with contextlib.suppress(StorageError):
            run.delete(GROUP)
            if not was_undisturbed:
                run.sweep(ROUNDS)  # worker 0 may have been lost in the middle of a commit
