"""The log of a container, from its node while that has it, else from where YARN keeps the logs of ended ones."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from jobs.runners.hadoop.yarn_rest import fetch, web_prefix

YARN_SECONDS = 60.0


def container_log(
    application: str,
    container: str,
    node: str | None,
    history: str | None,
    yarn: str,
    environment: Mapping[str, str],
    *,
    last_bytes: int,
    by_program: bool = True,
) -> str:
    """Return the end of a container's standard error; "" if nobody has it.

    ``node`` is the web address (``host:port``) of its node, ``history`` that of the history server. Where neither has
    it, the program ``yarn`` is asked, which starts a JVM; not if ``by_program`` is False.
    """
    addresses = [f"{web_prefix()}{node}/ws/v1/node/containers/{container}/logs/stderr"] if node else []
    if history:
        addresses.append(f"{history}/ws/v1/history/containerlogs/{container}/stderr")
    for address in addresses:
        data = fetch(address, last_bytes=last_bytes)
        if data and b"RemoteException" not in data[:200]:
            return _contents(data.decode("utf-8", "replace"))
    if not by_program:
        return ""
    command = [yarn, "logs", "-applicationId", application, "-containerId", container, "-log_files", "stderr"]
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=YARN_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return _contents(done.stdout[-last_bytes:].decode("utf-8", "replace")) if done.returncode == 0 else ""


def _contents(text: str) -> str:
    """The content of a log, without what YARN writes around it."""
    _, mark, rest = text.partition("LogContents:\n")
    return re.split(r"^End of LogType:", rest if mark else text, maxsplit=1, flags=re.MULTILINE)[0]
