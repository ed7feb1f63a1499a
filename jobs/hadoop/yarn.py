"""What YARN's web services tell of an application, and ending one. Nothing here starts a JVM but the last resort.

https://hadoop.apache.org/docs/r3.4.2/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnlib.errors import NnjobsError
from nnlib.storage import storage
from nnlib.storage.hadoop_command import find_hadoop
from nnlib.storage.hadoop_config import properties

TIMEOUT_SECONDS = 10.0
KILL_SECONDS = 60.0
END_SECONDS = 10.0
MASTER_SECONDS = 1.0
"""From an application's end to that of its master's process: YARN kills it 0.25 s after it has asked."""
_WEB = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy: one for the world outside does not lead to the cluster."""

ENDED = ("FINISHED", "FAILED", "KILLED")
"""States of an application that comes to no other."""

STAGING = "/tmp/hadoop-yarn/staging"
"""Hadoop's default of ``yarn.app.mapreduce.am.staging-dir``."""


def program(name: str) -> str:
    """One of Hadoop's commands, beside ``hadoop``."""
    hadoop = find_hadoop()
    return name if hadoop is None else str(Path(hadoop).with_name(name))


def user() -> str:
    """Whom the cluster takes us for, where it trusts its clients (no Kerberos)."""
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()


def fetch(address: str, *, last_bytes: int | None = None) -> bytes | None:
    """What stands at an address; None if there is nothing, or nobody answers. ``last_bytes`` of a log: no more than its
    end, which YARN is asked for and may not know to give."""
    if last_bytes is not None:
        address += f"?size=-{last_bytes}"
    request = urllib.request.Request(address, headers={"Accept": "application/json, text/plain, */*"})
    try:
        with _WEB.open(request, timeout=TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read()
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return data if last_bytes is None else data[-last_bytes:]


def fetch_json(address: str) -> dict[str, Any]:
    """An object in JSON; {} if there is none."""
    data = fetch(address)
    try:
        value = json.loads(data) if data else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def redirected(address: str) -> str:
    """Where an address leads; itself if nobody answers there."""
    try:
        with _WEB.open(address, timeout=TIMEOUT_SECONDS) as answer:
            return str(answer.geturl())
    except (OSError, http.client.HTTPException, ValueError):
        return address


def application(name: str, web: str | None) -> dict[str, Any]:
    """The resource manager's account of an application: state, finalStatus, diagnostics, amContainerLogs ..."""
    if web is None:
        return {}
    app = fetch_json(f"{web}/ws/v1/cluster/apps/{name}").get("app")
    return app if isinstance(app, dict) else {}


def kill_application(name: str, web: str | None, yarn: str, environment: Mapping[str, str]) -> None:
    """End an application, over HTTP where the resource manager allows it, else by ``yarn application -kill``; then what
    its client staged goes, too."""
    if web is None or not _kill_by_http(f"{web}/ws/v1/cluster/apps/{name}/state?user.name={user()}"):
        _kill_by_program(name, yarn, environment)
    _await_end(name, web)
    delete_staged(name)


def _await_end(name: str, web: str | None) -> None:
    """Until a killed application has ended and its master is gone: one that just begins would make folders anew that
    are deleted behind it."""
    deadline = time.monotonic() + END_SECONDS
    while (state := application(name, web).get("state")) not in (None, *ENDED) and time.monotonic() < deadline:
        time.sleep(0.1)
    if state is not None:
        time.sleep(MASTER_SECONDS)


def delete_staged(name: str) -> None:
    """Delete the job's files that its client put into HDFS. An application's master does so, but not if it is killed or
    never started."""
    root = properties().get("yarn.app.mapreduce.am.staging-dir", STAGING)
    job = name.replace("application_", "job_", 1)
    with contextlib.suppress(NnjobsError):  # it is some kilobytes; the default file system need not be HDFS
        storage(root if "://" in root else f"hdfs://{root}").delete(f"{user()}/.staging/{job}")


def _kill_by_program(name: str, yarn: str, environment: Mapping[str, str]) -> None:
    _run_quietly([yarn, "application", "-kill", name], environment)


def kill_attempt(attempt: str, web: str | None, mapred: str, environment: Mapping[str, str]) -> None:
    """End an attempt of a task; its job starts another, and does not count this one as a failure.

    Its container goes whatever state its processes are in. Over HTTP (the resource manager's proxy leads to the job's
    master) where that is allowed, else by ``mapred job -kill-task``.
    """
    _, cluster, number, kind, task, _ = attempt.split("_")
    job, application = f"job_{cluster}_{number}", f"application_{cluster}_{number}"
    place = f"tasks/task_{cluster}_{number}_{kind}_{task}/attempts/{attempt}/state"
    if web is not None and _kill_by_http(
        f"{web}/proxy/{application}/ws/v1/mapreduce/jobs/{job}/{place}?user.name={user()}"
    ):
        return
    _run_quietly([mapred, "job", "-kill-task", attempt], environment)


def _run_quietly(command: Sequence[str], environment: Mapping[str, str]) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=KILL_SECONDS,
            check=False,
        )


def _kill_by_http(address: str) -> bool:
    request = urllib.request.Request(
        address,
        data=json.dumps({"state": "KILLED"}).encode(),
        method="PUT",
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    try:
        with _WEB.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status in (200, 202))
    except (OSError, http.client.HTTPException, ValueError):
        return False
