"""Diagnoses a failed job: makes one error, of one screen, from the client's last lines and YARN's web services."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.runners.hadoop.container_log import container_log
from jobs.runners.hadoop.known_failures import KNOWN, Known
from jobs.runners.hadoop.submission import Submission
from jobs.runners.hadoop.yarn_rest import application, current_manager, fetch_entries, redirected
from nnlib.core.errors import JobError
from nnlib.core.waiting import waiting_for

LOG_BYTES = 64 << 10
LOG_LINES = 12
TRACEBACK_LINES = 14
HISTORY_SECONDS = 6.0
"""How long to ask the history server about a failed job. Of a job that lived for a second it may never learn."""

WORKING_ON = re.compile(r"^nnjobs: worker (\d+)", re.MULTILINE)
"""What a map task writes into its log before it begins with a worker (`jobs.runners.streaming_reporter`)."""


class FailedJobError(JobError):
    """A job failed on the cluster; ``lasting``: it would fail again."""

    lasting = False


def explain(submission: Submission, yarn: str, environment: Mapping[str, str]) -> FailedJobError:
    """Return the error of a failed job: which task and attempt, on which node, what its log says and what to do."""
    where: dict[str, object] = {"application": submission.application}
    text = "\n".join(submission.lines)
    log = ""
    submission.web = current_manager(submission.web) if submission.application else submission.web
    if submission.application and submission.web:
        with waiting_for(f"asking YARN why {submission.application} failed"):
            failed = _failed_attempt(submission)
        where |= {"task": failed.task, "attempt": failed.attempt, "node": failed.node}
        with waiting_for(f"fetching the log of {failed.container or 'the failed task'}"):
            log = _log(submission.application, failed, yarn, environment)
        text += f"\n{failed.diagnostics}"
        if workers := WORKING_ON.findall(log):
            where["worker"] = int(workers[-1])
    known = _known(f"{log}\n{text}")
    message = known[0] if known else "the job failed"
    details = _last_lines(log)[-3:] if known else _last_lines(log) or _client_error(submission)
    error = FailedJobError("\n    ".join([message, *details]), hint=known[1].hint if known else None)
    error.where = {key: value for key, value in where.items() if value is not None}
    error.lasting = known is not None and known[1].lasting
    return error


def _known(text: str) -> tuple[str, Known] | None:
    for known in KNOWN:
        if match := known.text.search(text):
            return known.message.format(*(group for group in match.groups() if group), ""), known
    return None


@dataclass(frozen=True)
class FailedAttempt:
    """The attempt by which a job failed: its container, its node's web address (``host:port``), YARN's diagnostics.

    ``history`` is the address of the history server, which keeps the logs; ``task`` is set where the attempt is not
    known.
    """

    attempt: str | None = None
    container: str | None = None
    node: str | None = None
    diagnostics: str = ""
    history: str | None = None
    task: str | None = None


_TASK = re.compile(r"Task failed (task_\w+)")


def _failed_attempt(submission: Submission) -> FailedAttempt:
    """The last attempt that failed, from the history server, else the job's master (its tasks may run in it)."""
    app = application(str(submission.application), submission.web)
    diagnostics = str(app.get("diagnostics") or "")
    deadline = time.monotonic() + HISTORY_SECONDS
    while (facts := _attempt(submission)) is None and time.monotonic() < deadline:
        time.sleep(0.3)  # a job's history is moved to its server some moments after its end
    if facts is not None:
        history, attempt = facts
        diagnostics += f"\n{attempt.get('diagnostics') or ''}"
        return FailedAttempt(
            attempt.get("id"), attempt.get("assignedContainerId"), attempt.get("nodeHttpAddress"), diagnostics, history
        )
    # Of a job of a second that server may have nothing: then the client's lines count, and the log is the master's.
    id = submission.failed[-1] if submission.failed else None
    task = _TASK.search(diagnostics)
    master = re.match(r"https?://([^/]+)/.*/(container_\w+)/", f"{app.get('amContainerLogs')}/")
    node, container = master.groups() if master else (None, None)
    return FailedAttempt(id, container, node, diagnostics, task=task[1] if task and id is None else None)


def _attempt(submission: Submission) -> tuple[str, dict[str, Any]] | None:
    """The history server's address and its record of the attempt that failed last; None if it has none (yet)."""
    server, separator, _ = redirected(f"{submission.web}/proxy/{submission.application}/").partition("/jobhistory/")
    if not separator:
        return None
    job = f"{server}/ws/v1/history/mapreduce/jobs/{submission.job}"
    tasks = fetch_entries(f"{job}/tasks", "tasks", "task")
    failed = [str(task["id"]) for task in tasks if task.get("state") == "FAILED" and task.get("id")]
    failed += [f"{attempt.replace('attempt_', 'task_', 1).rpartition('_')[0]}" for attempt in submission.failed[-1:]]
    for task in failed:
        attempts = fetch_entries(f"{job}/tasks/{task}/attempts", "taskAttempts", "taskAttempt")
        for attempt in reversed(attempts):
            if attempt.get("state") == "FAILED":
                return server, attempt
    return None


def _log(application: str, failed: FailedAttempt, yarn: str, environment: Mapping[str, str]) -> str:
    """The end of the failed container's standard error; "" if nobody has it."""
    if failed.container is None:
        return ""
    return container_log(
        application, failed.container, failed.node, failed.history, yarn, environment, last_bytes=LOG_BYTES
    )


_REASON = re.compile(r"Job job_\w+ failed with state \w+ due to: (.+)")

_NOISE = re.compile(
    r"^(reporter:|nnjobs: worker \d+ on \S+$|log4j:|SLF4J|INFO: |WARNING: |OpenJDK |[A-Z][a-z]{2} \d\d, \d{4} )|^\s*$"
)
"""Lines that do not explain a failure, most of them the JVM's."""


def _last_lines(log: str) -> list[str]:
    """A traceback in a log if there is one, and the log's last lines."""
    lines = [line.rstrip() for line in log.splitlines() if not _NOISE.match(line)]
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if starts:
        start = starts[-1]
        end = start + 1
        while end < len(lines) and lines[end].startswith(" "):
            end += 1
        trace = lines[start : end + 1]
        if len(trace) > TRACEBACK_LINES:
            trace = [trace[0], "  ...", *trace[-(TRACEBACK_LINES - 2) :]]
        return trace
    return ["the last lines of its log:", *lines[-LOG_LINES:]] if lines else []


def _client_error(submission: Submission) -> list[str]:
    """The client's own errors, where no task's log could be read; of a job that ran, why it failed."""
    reasons = [reason for line in submission.lines for reason in _REASON.findall(line)]
    lines = [line for line in submission.lines if " ERROR " in line or " WARN " in line or "Exception" in line]
    chosen = reasons or [line.strip() for line in lines or submission.lines if not line.startswith("\tat ")]
    return list(dict.fromkeys(chosen))[-LOG_LINES:]
