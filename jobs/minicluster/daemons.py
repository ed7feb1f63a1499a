"""The five daemons: how each is started, and what its log tells when it fails."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.minicluster.assemble import JARS
from jobs.minicluster.layout import Layout
from jobs.minicluster.processes import POLL_SECONDS, daemons_of, mark_of
from nnlib.core.errors import JobError


@dataclass(frozen=True)
class Daemon:
    """A kind of daemon: what people call it, its main class, the port of its web interface."""

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

JVM = (
    "-Xmx256m",
    # Starting fast counts here, not throughput: the quick compiler only, no parallel collector's threads.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.net.preferIPv4Stack=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)

TELLING = re.compile(r"\b(ERROR|FATAL)\b|Caused by:|Address already in use|Exception: |^Error:|\b[Uu]nrecognized\b")
TELLING_LINES, LINE_LENGTH = 6, 240

OURS = ("HADOOP_USER_NAME", "HADOOP_PROXY_USER", "HADOOP_TOKEN_FILE_LOCATION", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
"""Variables that would make a daemon another user's, or give all five the same debugger port."""


FORMAT = "format"
"""The mark of the NameNode that makes its files and ends."""


def command_line(layout: Layout, name: str, *arguments: str) -> list[str]:
    """The ``java`` call of a daemon. It carries the mark by which `processes.daemons_of` finds it."""
    daemon = DAEMONS["namenode" if name == FORMAT else name]
    home = layout.hadoop_home
    classes = (layout.conf, home / "share/hadoop/webroot", home / JARS / "*")
    return [
        str(layout.java_home / "bin/java"),
        *f"{mark_of(layout.folder)}{name}".split(),
        *JVM,
        f"-Dhadoop.home.dir={home}",
        f"-Dhadoop.log.dir={layout.logs}",
        "-cp",
        os.pathsep.join(str(part) for part in classes),
        daemon.main,
        *arguments,
    ]


def log_of(layout: Layout, name: str) -> Path:
    return layout.logs / f"{name}.log"


def launch(layout: Layout, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts a daemon in a session of its own; its log is new, the one before it kept as ``.old``."""
    log = log_of(layout, name)
    if log.exists():
        log.replace(log.with_suffix(".old"))
    environment = {key: value for key, value in os.environ.items() if key not in OURS} | layout.environment()
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command_line(layout, name, *arguments),
            cwd=layout.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # The arguments of a process appear a moment after it: who looks for daemons from now on finds this one.
    while child.poll() is None and name not in daemons_of(layout.folder):
        time.sleep(POLL_SECONDS)
    return child


def telling_lines(log: Path) -> list[str]:
    """The lines of a log that say what went wrong, at most `TELLING_LINES`; its last ones if none does."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"{log}: {error.strerror}"]
    found = list(dict.fromkeys(line.strip() for line in lines if TELLING.search(line)))
    if len(found) > TELLING_LINES:  # the first error, and the last causes
        found = [*found[:2], *found[2 - TELLING_LINES :]]
    chosen = found or [line.strip() for line in lines if line.strip()][-3:]
    return [line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]} ..." for line in chosen]


def failure(layout: Layout, name: str, what: str) -> JobError:
    """The error that says what a daemon did and what its log tells."""
    log = log_of(layout, name)
    told = "\n".join(f"  {line}" for line in telling_lines(log))
    title = DAEMONS["namenode" if name == FORMAT else name].title
    return JobError(f"the {title} {what}; its log tells:\n{told}", hint=f"the whole log is in {log}")
