"""Says what a submitted job waits for: its client, the resource manager, its queue, its containers."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator

from jobs.runners.hadoop.queue_state import WAITING_STATES, accepted_text, nodes_text, pending_text
from jobs.runners.hadoop.submission import NO_TICKET, State, Submission
from jobs.runners.hadoop.yarn_rest import ENDED, application, current_manager
from jobs.runners.request import JobRequest
from nnlib.core.waiting import Wait, waiting_for

FIRST_SECONDS = 4.0
"""Jobs that are done sooner ask the resource manager nothing more."""
POLL_SECONDS = 3.0

_RETRYING = re.compile(r"Retrying connect to server: *([^ .,;]+(?:\.[^ .,;]+)*)")
_PROGRESS = re.compile(r"\bmap (\d+)% reduce (\d+)%")


@contextlib.contextmanager
def watched(request: JobRequest, submission: Submission) -> Iterator[None]:
    """Name what a job waits for while the block runs, in which its client does."""
    done = threading.Event()
    with waiting_for("") as wait:
        thread = threading.Thread(target=_watch, args=(request, submission, wait, done), name="job watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()  # the thread may still wait for an answer: nobody waits for that


def _watch(request: JobRequest, submission: Submission, wait: Wait, done: threading.Event) -> None:
    phase = ""
    pause = FIRST_SECONDS
    while not done.wait(pause):
        pause = POLL_SECONDS
        now, text = job_text(request, submission)
        if now != phase and phase:
            wait.restart(text)
        phase, wait.what = now, text


def job_text(request: JobRequest, submission: Submission) -> tuple[str, str]:
    """Return what a job does now: a word that changes when something else begins, and a text for people ("" where
    other lines say how far the job is)."""
    if submission.state in (State.ENDED, State.LEFT):
        return "ending", f"{request.name}: ending {submission.application}"
    client = _client_text(submission)
    if submission.state is State.UNSUBMITTED or submission.application is None:
        return "submitting", f"{request.name}: {client or 'is being submitted by the Hadoop client'}"
    submission.web = web = current_manager(submission.web)
    app = application(submission.application, web)
    if web is None or not app:
        silent = "YARN's pages do not answer" + ("" if web is None else f" at {web}")
        return "silent", f"{request.name}: {submission.application} runs, but {client or silent}"
    if app.get("state") in WAITING_STATES:
        return "accepted", f"{request.name}: {accepted_text(app, web)}"
    if app.get("state") in ENDED:
        return "ended", f"{request.name}: {submission.application} has ended; its client has not"
    facts = [] if request.is_collective else [_progress(submission)]
    facts += [pending_text(web, str(app.get("queue") or "")), nodes_text(web), client]
    text = ", ".join(fact for fact in facts if fact)
    return "running", f"{request.name}: {text} ({submission.application})" if text else ""


def _client_text(submission: Submission) -> str:
    """What the client's last line complains of; "" where it does not."""
    last = submission.lines[-1] if submission.lines else ""
    if NO_TICKET.search(last):
        return "the Hadoop client has no valid Kerberos ticket (kinit)"
    match = _RETRYING.search(last)
    return f"{match[1]} does not answer the Hadoop client" if match else ""


def _progress(submission: Submission) -> str:
    for line in reversed(tuple(submission.lines)):
        if match := _PROGRESS.search(line):
            return f"map {match[1]} %, reduce {match[2]} %"
    return "its tasks have not started"
