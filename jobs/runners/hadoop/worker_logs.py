"""What workers on a cluster write: in the containers of running jobs, and where YARN keeps the logs of ended ones."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from jobs.runners.hadoop.container_log import container_log
from jobs.runners.hadoop.diagnosis import WORKING_ON
from jobs.runners.hadoop.yarn_rest import ENDED, application, fetch_entries, program, redirected, resource_manager
from jobs.runners.worker_logs import LogRequest, WorkerLog
from nnlib.core.errors import JobError
from nnlib.core.waiting import waiting_for
from nnlib.run.journal import read_events
from nnlib.run.run_events import JobEvent
from nnlib.storage.hdfs.hadoop_config import properties

LOG_BYTES = 4 << 20
"""Of a container's log at most so much is read: its end."""
AT_ONCE = 8
"""Requests at once: a job may have thousands of tasks."""


@dataclass(frozen=True)
class MapAttempt:
    """An attempt of a map task: its ``container``, and the web address (``host:port``) of its ``node``."""

    name: str
    container: str
    node: str | None


def find_log(request: LogRequest) -> WorkerLog:
    """Return what a worker has written: a `jobs.runners.worker_logs.FindLog`."""
    name = _application_of(request)
    with waiting_for(f"looking for the log of worker {request.worker} in {name}"):
        attempts, history = _attempts(name)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            found = list(threads.map(partial(_log_of, name, history, request.worker), attempts))
    logs = [(attempt, text) for attempt, text in zip(attempts, found, strict=True) if text is not None]
    if not logs:
        raise JobError(_reason(name, request.worker, len(attempts)), run=request.run.address)
    attempt, text = logs[-1]
    if request.state.mode != "collective":  # there the workers of a container write at the same time
        text = part_of(text, request.worker)
    return WorkerLog(text, f"{attempt.name} in {attempt.container}{f' on {attempt.node}' if attempt.node else ''}")


def part_of(log: str, worker: int) -> str:
    """Return the parts of a task's log that are about a worker: the workers of one task write one after the other."""
    marks = list(WORKING_ON.finditer(log))
    ends = [mark.start() for mark in marks[1:]] + [len(log)] * bool(marks)
    return "".join(log[mark.start() : end] for mark, end in zip(marks, ends, strict=True) if int(mark[1]) == worker)


def _application_of(request: LogRequest) -> str:
    """The application of the job whose log is wanted. Raises `JobError` if the run does not know it."""
    state = request.state
    if state.application is not None and request.job in (None, state.job):
        return state.application
    jobs = [each.event for each in read_events(request.run) if isinstance(each.event, JobEvent)]
    names = [job.application for job in jobs if job.application and request.job in (None, job.job)]
    if names:
        return names[-1]
    what = "no job" if request.job is None else f"no job {request.job}"
    raise JobError(
        f"the run's events have {what}: it has not begun, or the driver was killed before it was noted",
        hint="yarn application -list -appStates ALL shows what ran",
        run=request.run.address,
    )


def _attempts(name: str) -> tuple[list[MapAttempt], str | None]:
    """The attempts of an application's map tasks, those that began last at the end; and the history server's address,
    if that has them."""
    web, job = resource_manager(), name.replace("application_", "job_", 1)
    app = application(name, web)
    history = None
    if web is not None and app.get("state") == "RUNNING":
        base = f"{web}/proxy/{name}/ws/v1/mapreduce/jobs/{job}"
    else:
        history = _history_server(name, web)
        if history is None:
            raise JobError(
                f"{name} has ended, and no history server is known that may have its tasks",
                hint="set mapreduce.jobhistory.webapp.address in mapred-site.xml, or ask: yarn logs -applicationId "
                f"{name}",
            )
        base = f"{history}/ws/v1/history/mapreduce/jobs/{job}"
    tasks = [str(task["id"]) for task in fetch_entries(f"{base}/tasks?type=m", "tasks", "task") if task.get("id")]
    if not tasks:
        state = str(app.get("state") or "unknown")
        kept = " any more" if app.get("state") in ENDED or not app else ""
        raise JobError(
            f"YARN does not know the tasks of {name}{kept} (state {state}): they have not begun, its pages cannot be "
            "reached, or its history was deleted (mapreduce.jobhistory.max-age-ms)",
            hint=f"yarn logs -applicationId {name}",
        )
    with ThreadPoolExecutor(AT_ONCE) as threads:
        listed = threads.map(
            lambda task: fetch_entries(f"{base}/tasks/{task}/attempts", "taskAttempts", "taskAttempt"), tasks
        )
        attempts = [attempt for entries in listed for attempt in entries if attempt.get("assignedContainerId")]
    attempts.sort(key=lambda attempt: int(attempt.get("startTime") or 0))
    return [
        MapAttempt(
            str(attempt.get("id")),
            str(attempt["assignedContainerId"]),
            str(attempt["nodeHttpAddress"]) if attempt.get("nodeHttpAddress") else None,
        )
        for attempt in attempts
    ], history


def _history_server(name: str, web: str | None) -> str | None:
    """The address of the server of ended jobs: where the application's page leads to, else by Hadoop's settings."""
    if web is not None:
        server, separator, _ = redirected(f"{web}/proxy/{name}/").partition("/jobhistory/")
        if separator:
            return server
    site = properties()
    secure = site.get("mapreduce.jobhistory.http.policy") == "HTTPS_ONLY"
    address = site.get(f"mapreduce.jobhistory.webapp.{'https.' if secure else ''}address")
    return None if address is None else f"{'https://' if secure else 'http://'}{address}"


def _log_of(name: str, history: str | None, worker: int, attempt: MapAttempt) -> str | None:
    """The log of an attempt's container; None if it is not about the worker."""
    log = container_log(
        name,
        attempt.container,
        attempt.node,
        history,
        program("yarn"),
        os.environ,
        last_bytes=LOG_BYTES,
        by_program=False,
    )
    return log if any(int(mark[1]) == worker for mark in WORKING_ON.finditer(log)) else None


def _reason(name: str, worker: int, attempts: int) -> str:
    enabled = properties().get("yarn.log-aggregation-enable") == "true"
    where = (
        f"was deleted (yarn.log-aggregation.retain-seconds), or is not moved yet; try yarn logs -applicationId {name}"
        if enabled
        else "was deleted from its node, for the cluster keeps none (yarn.log-aggregation-enable)"
    )
    return (
        f"none of the {attempts} logs of map tasks of {name} that can be read is of worker {worker}: it has not begun, "
        f"or its log {where}"
    )
