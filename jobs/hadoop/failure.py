"""Why a job failed: from the client's last lines and YARN's web services to one error on one screen."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.hadoop.client import Submission
from jobs.hadoop.yarn import application, fetch, fetch_json
from nnlib.errors import JobError

LOG_BYTES = 64 << 10
LOG_LINES = 12
TRACEBACK_LINES = 14
YARN_SECONDS = 60.0

WORKING_ON = re.compile(r"^nnjobs: worker (\d+)", re.MULTILINE)
"""What a map task writes into its log before it begins with a worker (`jobs.hadoop.reporter`)."""


class FailedJobError(JobError):
    """A job failed on the cluster; ``lasting``: it would fail again."""

    lasting = False


@dataclass(frozen=True)
class Known:
    """A failure that has a name: what its text looks like, what to say, what to do; ``lasting``: trying again would
    not help."""

    text: re.Pattern[str]
    message: str
    hint: str
    lasting: bool = True


KNOWN = (
    Known(
        re.compile(r"nnjobs: this node has no (python\S*)"),
        "a node has no {0}",
        "let the environment bring its own Python: pack it without --no-python",
    ),
    Known(
        re.compile(r'Cannot run program "([^"]*)"|(\S+): (?:command )?not found'),
        "a node has no Python {0}",
        "leave out runtime.hadoop.python_bin: then an environment travels with the job",
    ),
    Known(
        re.compile(r"ModuleNotFoundError: No module named '([^']*)'"),
        "the nodes' Python lacks the module {0}",
        "install it on every node (pip install nnjobs), or leave out runtime.hadoop.python_bin: then an environment "
        "travels with the job",
    ),
    Known(
        re.compile(r"version `(GLIBC_[0-9.]+)' not found|(cannot execute binary file|Exec format error)"),
        "the packed environment does not run on a node: its system is older or another ({0})",
        "pack on a machine like the nodes (nnjobs pack -o FILE, runtime.hadoop.archive), or use --python-bin",
    ),
    Known(
        re.compile(r"running beyond (physical|virtual) memory limits"),
        "a task took more {0} memory than its container has",
        "raise runtime.hadoop.memory_mb, or lower runtime.memory_mb",
        lasting=False,
    ),
    Known(
        re.compile(r"(Timed out after \d+ secs)"),
        "a task hung: {0}",
        "see its node; a task that needs longer between two signs of life: raise runtime.task_timeout_seconds",
        lasting=False,
    ),
    Known(
        re.compile(r"submitted by user (?:.*) to unknown queue: *(\S+)|Queue (\S+) (?:is not|does not|doesn't)"),
        "there is no queue {0} to submit to",
        "set runtime.hadoop.queue to one of the cluster's (yarn queue -status NAME)",
    ),
    Known(
        re.compile(r"Invalid resource request|(?:MAP|REDUCE) capability required is more than.*"),
        "no node is large enough for a task's container",
        "lower runtime.memory_mb or runtime.hadoop.memory_mb and vcores, or use smaller batches",
    ),
    Known(
        re.compile(r"(ConnectException|NoRouteToHost|UnknownHostException)[^\n]*"),
        "the cluster does not answer ({0})",
        "is it running, and does HADOOP_CONF_DIR describe it? (nnjobs doctor)",
        lasting=False,
    ),
    Known(
        re.compile(r"(DSQuotaExceeded|NSQuotaExceeded|DiskQuotaExceeded|QuotaExceeded)\w*"),
        "the quota of an HDFS folder is used up",
        "free some space there, or ask for more, then go on with --resume",
    ),
)


def explain(said: Submission, yarn: str, environment: Mapping[str, str]) -> FailedJobError:
    """The error of a failed job: which task and attempt, on which node, what its log says and what to do."""
    where: dict[str, object] = {}
    text = "\n".join(said.lines)
    log = ""
    app = application(said.application, said.web) if said.application and said.web else {}
    text += "\n" + str(app.get("diagnostics", ""))
    if said.application:
        where["application"] = said.application
        container, node, attempt, told = _failed_attempt(said, app)
        text += "\n" + told
        if attempt:
            where["attempt"] = attempt
        if node:
            where["node"] = node
        log = _log(said, container, node, yarn, environment)
        if workers := WORKING_ON.findall(log):
            where["worker"] = int(workers[-1])
    known = _known(f"{log}\n{text}")
    message = known[0] if known else "the job failed"
    parts = [message, *_telling(log)] if log else [message, *_client_error(said)]
    error = FailedJobError("\n    ".join(parts), hint=known[1].hint if known else None)
    error.where = where
    error.lasting = known is not None and known[1].lasting
    return error


def _known(text: str) -> tuple[str, Known] | None:
    for known in KNOWN:
        if found := known.text.search(text):
            return known.message.format(*(group for group in found.groups() if group), ""), known
    return None


def _failed_attempt(said: Submission, app: dict[str, object]) -> tuple[str | None, str | None, str | None, str]:
    """Container, node's web address, attempt and diagnostics of the last attempt that failed; the master's own
    container where no task did, or where tasks ran in it."""
    attempt = said.failed[-1] if said.failed else None
    if attempt is not None and said.web and said.job:
        task = attempt.replace("attempt_", "task_", 1).rpartition("_")[0]
        tracking = str(app.get("trackingUrl") or "")
        bases = [f"{said.web}/proxy/{said.application}/ws/v1/mapreduce"]
        if "/jobhistory/" in tracking:
            bases.insert(0, f"{tracking.partition('/jobhistory/')[0]}/ws/v1/history/mapreduce")
        for base in bases:
            facts = fetch_json(f"{base}/jobs/{said.job}/tasks/{task}/attempts/{attempt}").get("taskAttempt")
            if isinstance(facts, dict) and facts:
                told = str(facts.get("diagnostics") or facts.get("note") or "")
                return facts.get("assignedContainerId"), facts.get("nodeHttpAddress"), attempt, told
    master = str(app.get("amContainerLogs") or "")
    found = re.match(r"https?://([^/]+)/.*/(container_\w+)/", master + "/")
    return (found[2], found[1], attempt, "") if found else (None, None, attempt, "")


def _log(said: Submission, container: str | None, node: str | None, yarn: str, environment: Mapping[str, str]) -> str:
    """The end of a container's standard error: from its node, else (a node that is gone, or sent its logs away) by
    the program ``yarn logs``."""
    if container is None or said.application is None:
        return ""
    if node:
        data = fetch(f"http://{node}/ws/v1/node/containers/{container}/logs/stderr", last_bytes=LOG_BYTES)
        if data:
            return data.decode("utf-8", "replace")
    command = [yarn, "logs", "-applicationId", said.application, "-containerId", container, "-log_files", "stderr"]
    try:
        done = subprocess.run(
            command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, timeout=YARN_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout[-LOG_BYTES:].decode("utf-8", "replace") if done.returncode == 0 else ""


_NOISE = re.compile(r"^(reporter:|nnjobs: worker |log4j:|SLF4J|WARNING: |OpenJDK |[A-Z][a-z]{2} \d\d, \d{4} )|^\s*$")


def _telling(log: str) -> list[str]:
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


def _client_error(said: Submission) -> list[str]:
    """What the client itself complained of, where no task's log was to be had."""
    lines = [line for line in said.lines if " ERROR " in line or " WARN " in line or "Exception" in line]
    return (lines or list(said.lines))[-LOG_LINES:]
