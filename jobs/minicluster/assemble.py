"""Assembles Hadoop from the Maven artifacts that resources/pom.xml names, once, into the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from jobs.minicluster.java import Java
from nnlib.core.errors import JobError, StorageError, UsageError

RESOURCES = Path(str(files("jobs.minicluster") / "resources"))

JARS = "share/hadoop/common"
TOOLS = "share/hadoop/tools/lib"
PROGRAMS = ("hadoop", "hdfs", "yarn", "mapred")

WEB_APPS = ("hdfs", "datanode", "static")
"""Folders that the HDFS daemons look for on their class path. They may be empty: the REST interfaces are servlets."""

MAVEN_HINT = "install Maven (Debian: apt install maven; macOS: brew install maven)"

SCRATCH = ".hadoop-"
SECONDS = 1800
"""Maven may take this long: 93 MB over a slow line."""


def cache_folder() -> Path:
    """Return the folder of assembled Hadoops: ``$XDG_CACHE_HOME/nnjobs``, by default ``~/.cache/nnjobs``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nnjobs"


def assembly_folder() -> Path:
    """Return the HADOOP_HOME for these resources: another pom or launcher has another folder."""
    digest = hashlib.sha256()
    for name in ("pom.xml", "hadoop.sh"):
        digest.update((RESOURCES / name).read_bytes())
    return cache_folder() / f"hadoop-{digest.hexdigest()[:12]}"


def assemble(java: Java, announce: Callable[[str], None]) -> Path:
    """Return the HADOOP_HOME, which Maven makes now unless it exists. Two processes may do so at once.

    ``announce`` is called with each step, a line for people.

    Raises:
        UsageError: there is no Maven.
        JobError: Maven failed (no network, no room).
        StorageError: the cache cannot be written.
    """
    home = assembly_folder()
    if home.is_dir():
        return home
    maven = shutil.which("mvn")
    if maven is None:
        raise UsageError(
            "Hadoop is assembled by Maven, and there is no mvn on PATH",
            hint=MAVEN_HINT,
        )
    announce("assembling Hadoop from Maven artifacts (93 MB, once; half a minute on a fast line)")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _sweep(home.parent)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=home.parent) as scratch:
            made = Path(scratch, "home")
            _collect(maven, java, made / JARS)
            _arrange(made)
            _publish(made, home)
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename or home.parent}: {error.strerror}",
            hint="free some room, or set XDG_CACHE_HOME to another folder",
        ) from error
    return home


def _sweep(folder: Path) -> None:
    """Remove what killed processes left here; the folder of one that still works is younger."""
    for path in folder.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 2 * SECONDS:
                shutil.rmtree(path)


def _collect(maven: str, java: Java, jars: Path) -> None:
    pom = RESOURCES / "pom.xml"
    command = [maven, "-B", "-q", "-ntp", "-f", str(pom), f"-Dassembly={jars}", "package"]
    environment = os.environ | {"JAVA_HOME": str(java.home)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise JobError(f"Maven did not finish within {SECONDS} s", hint="try again: it goes on where it was") from error
    if done.returncode:
        output = without_colours(done.stdout + done.stderr).splitlines()
        lines = [line for line in output if "ERROR" in line] or output[-4:]
        quoted = "\n".join(f"  {line}" for line in lines[:4])
        raise JobError(
            f"Maven failed with exit code {done.returncode}:\n{quoted}",
            hint="is Maven Central, or the mirror in ~/.m2/settings.xml, reachable, and is there room on the disk?",
        )


def without_colours(text: str) -> str:
    """Return Maven's output without control sequences, which it writes even where there is no terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _arrange(made: Path) -> None:
    """Move files to where Hadoop's own releases have them: mrjob and people look there."""
    (made / TOOLS).mkdir(parents=True)
    for jar in (made / JARS).glob("hadoop-streaming-*.jar"):
        jar.rename(made / TOOLS / jar.name)
    for name in WEB_APPS:
        (made / "share/hadoop/webroot/webapps" / name).mkdir(parents=True)
    (made / "bin").mkdir()
    launcher = made / "bin" / PROGRAMS[0]
    shutil.copyfile(RESOURCES / "hadoop.sh", launcher)
    launcher.chmod(0o755)
    for name in PROGRAMS[1:]:
        (made / "bin" / name).symlink_to(PROGRAMS[0])


def _publish(made: Path, home: Path) -> None:
    try:
        made.rename(home)
    except OSError:
        if not home.is_dir():  # another process was first otherwise: what it made is the same
            raise
