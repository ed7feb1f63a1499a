"""Kills an application, or an attempt of a task: over HTTP where the resource manager allows it, else by its programs,
each of which is a JVM."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping, Sequence

from jobs.runners.hadoop.hadoop_web import request
from jobs.runners.hadoop.yarn_rest import ENDED, application, current_manager, fetch_object, nodes_of
from nnlib.core.errors import NnjobsError
from nnlib.core.waiting import waiting_for
from nnlib.storage import has_scheme, storage
from nnlib.storage.hdfs.hadoop_config import properties, wants_kerberos
from nnlib.storage.hdfs.hadoop_user import hadoop_user

KILL_SECONDS = 60.0
END_SECONDS = 10.0
"""How long to wait for the end of a killed application: a node learns of it with its next heartbeat."""
POLL_SECONDS = 0.05
NODE_SECONDS = 1.0
"""How long to wait for a node's answer: nodes' web services may be out of reach, and there may be many nodes."""
PROCESS_SECONDS = 0.5
"""A container that was killed while it started counts as ended before its process has; that gets 0.25 s to end by
itself (``yarn.nodemanager.sleep-delay-before-sigkill.ms``)."""

STAGING = "/tmp/hadoop-yarn/staging"
"""Hadoop's default of ``yarn.app.mapreduce.am.staging-dir``."""


def kill_application(name: str, web: str | None, yarn: str, environment: Mapping[str, str]) -> bool:
    """Kill an application, wait until nothing of it runs, and delete what its client staged; return False if the
    cluster did not accept the order.

    ``web`` is the resource manager's address, if the client printed it; ``yarn`` is the program.
    """
    with waiting_for(f"ending {name}"):
        return _kill_application(name, current_manager(web), yarn, environment)


def _kill_application(name: str, web: str | None, yarn: str, environment: Mapping[str, str]) -> bool:
    nodes = nodes_of(name, web)
    taken = web is not None and _kill_by_http(f"{web}/ws/v1/cluster/apps/{name}/state{_as_user()}")
    if not taken and not _run_quietly([yarn, "application", "-kill", name], environment):
        return False
    _await_end(name, web, nodes)
    delete_staged(name)
    return True


def _await_end(name: str, web: str | None, nodes: set[str]) -> None:
    """Wait until an application's processes on the nodes are gone: a master or a task that has just begun would make
    the output folder again after it was deleted."""
    deadline = time.monotonic() + END_SECONDS
    while application(name, web).get("state") not in (None, *ENDED) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for node in sorted(nodes | nodes_of(name, web)):
        while time.monotonic() < deadline and _runs_on(node, name):
            time.sleep(POLL_SECONDS)
    time.sleep(PROCESS_SECONDS)


def _runs_on(node: str, name: str) -> bool:
    """Whether a node still has containers of an application; False for a node that does not answer."""
    app = fetch_object(f"{node}/ws/v1/node/apps/{name}", "app", timeout=NODE_SECONDS)
    return (app.get("state") or "FINISHED") not in ("APPLICATION_RESOURCES_CLEANINGUP", "FINISHED")


def delete_staged(name: str) -> None:
    """Delete a job's files that its client uploaded to HDFS. An application's master does so, unless it is killed or
    never started."""
    job = name.replace("application_", "job_", 1)
    with contextlib.suppress(NnjobsError):  # it is some kilobytes; the default file system need not be HDFS
        root = properties().get("yarn.app.mapreduce.am.staging-dir", STAGING)
        storage(root if has_scheme(root) else f"hdfs://{root}").delete(f"{hadoop_user()}/.staging/{job}")


def kill_attempt(attempt: str, web: str | None, mapred: str, environment: Mapping[str, str]) -> None:
    """Kill an attempt of a task; its job starts another, and does not count this one as a failure.

    The container ends whatever state its processes are in. ``web`` is the resource manager's address, whose proxy leads
    to the job's master; ``mapred`` is the program.
    """
    _, cluster, number, kind, task, _ = attempt.split("_")
    job, name = f"job_{cluster}_{number}", f"application_{cluster}_{number}"
    web = current_manager(web)
    path = f"tasks/task_{cluster}_{number}_{kind}_{task}/attempts/{attempt}/state"
    if web is not None and _kill_by_http(f"{web}/proxy/{name}/ws/v1/mapreduce/jobs/{job}/{path}{_as_user()}"):
        return
    _run_quietly([mapred, "job", "-kill-task", attempt], environment)


def _run_quietly(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Run a program, which no Ctrl-C at the terminal reaches; return whether it succeeded."""
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=KILL_SECONDS,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _kill_by_http(address: str) -> bool:
    answer = request(address, "PUT", body={"state": "KILLED"})
    return answer is not None and answer.status_code in (200, 202)


def _as_user() -> str:
    """The end of an address that says who asks; with Kerberos the ticket does."""
    return "" if wants_kerberos() else f"?user.name={hadoop_user()}"
