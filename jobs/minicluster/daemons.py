"""The five daemons: how each is started, and what its log says when it fails."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.minicluster.assemble import JARS
from jobs.minicluster.processes import POLL_SECONDS, daemons_of, mark_of
from jobs.minicluster.settings import ClusterSettings
from nnlib.core.errors import JobError


@dataclass(frozen=True)
class Daemon:
    """A daemon: what people call it, its main class, the port of its web interface (a name in `settings.PORTS`)."""

    title: str
    main: str
    port: str


DAEMONS = {
    "namenode": Daemon("NameNode", "org.apache.hadoop.hdfs.server.namenode.NameNode", "namenode_http"),
    "datanode": Daemon("DataNode", "org.apache.hadoop.hdfs.server.datanode.DataNode", "datanode_http"),
    "resourcemanager": Daemon(
        "ResourceManager",
        "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager",
        "resourcemanager_http",
    ),
    "nodemanager": Daemon("NodeManager", "org.apache.hadoop.yarn.server.nodemanager.NodeManager", "nodemanager_http"),
    "historyserver": Daemon(
        "JobHistoryServer", "org.apache.hadoop.mapreduce.v2.hs.JobHistoryServer", "historyserver_http"
    ),
}

JVM_OPTIONS = (
    "-Xmx256m",
    # A fast start counts here, not throughput: only the quick compiler, no threads of a parallel collector.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.net.preferIPv4Stack=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)

ERROR_PATTERN = re.compile(
    r"\b(ERROR|FATAL)\b|Caused by:|Address already in use|Exception: |^Error:|\b[Uu]nrecognized\b"
)
MAX_ERROR_LINES, LINE_LENGTH = 6, 240

DROPPED_VARIABLES = (
    "HADOOP_USER_NAME",
    "HADOOP_PROXY_USER",
    "HADOOP_TOKEN_FILE_LOCATION",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
)
"""Variables that would make a daemon another user's, or give all five the same debugger port."""


FORMAT = "format"
"""The mark of the NameNode that makes its files and ends."""


def command_line(settings: ClusterSettings, name: str, *arguments: str) -> list[str]:
    """Return the ``java`` command of a daemon. It carries the mark by which `processes.daemons_of` finds it."""
    daemon = DAEMONS["namenode" if name == FORMAT else name]
    home = settings.hadoop_home
    classes = (settings.conf, home / "share/hadoop/webroot", home / JARS / "*")
    return [
        str(settings.java_home / "bin/java"),
        *f"{mark_of(settings.folder)}{name}".split(),
        *JVM_OPTIONS,
        f"-Dhadoop.home.dir={home}",
        f"-Dhadoop.log.dir={settings.logs}",
        "-cp",
        os.pathsep.join(str(part) for part in classes),
        daemon.main,
        *arguments,
    ]


def log_of(settings: ClusterSettings, name: str) -> Path:
    """Return the path of a daemon's log."""
    return settings.logs / f"{name}.log"


def launch(settings: ClusterSettings, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a daemon in a new session, with a new log; the log before it is kept as ``.old``."""
    log = log_of(settings, name)
    if log.exists():
        log.replace(log.with_suffix(".old"))
    kept = {key: value for key, value in os.environ.items() if key not in DROPPED_VARIABLES}
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command_line(settings, name, *arguments),
            cwd=settings.folder,
            env=kept | settings.environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # The arguments of a process appear a moment after it; from here on `daemons_of` finds this one.
    while child.poll() is None and name not in daemons_of(settings.folder):
        time.sleep(POLL_SECONDS)
    return child


def error_lines(log: Path) -> list[str]:
    """Return the lines of a log that say what went wrong, at most `MAX_ERROR_LINES`; the last three if none does."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"{log}: {error.strerror}"]
    errors = list(dict.fromkeys(line.strip() for line in lines if ERROR_PATTERN.search(line)))
    if len(errors) > MAX_ERROR_LINES:  # the first errors, and the last causes
        errors = [*errors[:2], *errors[2 - MAX_ERROR_LINES :]]
    chosen = errors or [line.strip() for line in lines if line.strip()][-3:]
    return [line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]} ..." for line in chosen]


def daemon_error(settings: ClusterSettings, name: str, what: str) -> JobError:
    """Return the error that says what a daemon did and quotes its log."""
    log = log_of(settings, name)
    quoted = "\n".join(f"  {line}" for line in error_lines(log))
    title = DAEMONS["namenode" if name == FORMAT else name].title
    return JobError(f"the {title} {what}; its log says:\n{quoted}", hint=f"the whole log is in {log}")
