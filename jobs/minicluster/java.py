"""Finds a Java that Hadoop runs on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nnlib.core.errors import UsageError

OLDEST, NEWEST = 11, 17
"""Releases of Java that Hadoop 3.4 is made for. Later ones lack the security manager, which its login uses."""

HINT = f"install a JDK {OLDEST} or {NEWEST} (Debian: apt install openjdk-17-jdk-headless), or name one with JAVA_HOME"


@dataclass(frozen=True)
class Java:
    """A Java installation: its folder and its release, such as 17."""

    home: Path
    release: int

    @property
    def program(self) -> Path:
        """The ``java`` command."""
        return self.home / "bin" / "java"


def find_java() -> Java:
    """Find the Java of JAVA_HOME, else the one on PATH, and check that Hadoop runs on it.

    Raises:
        UsageError: there is none, it does not run, or Hadoop does not run on it.
    """
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home else shutil.which("java")
    where = f"JAVA_HOME={home}" if home else "PATH"
    if program is None:
        raise UsageError("Hadoop needs Java, and there is none on PATH nor a JAVA_HOME", hint=HINT)
    try:
        done = subprocess.run(
            [program, "-XshowSettings:properties", "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"the Java of {where} does not run: {error}", hint=HINT) from error
    settings = dict(re.findall(r"^\s*(java\.\S+) = (.*)$", done.stderr, re.MULTILINE))
    version = settings.get("java.specification.version", "")
    if done.returncode or "java.home" not in settings or not version:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"the Java of {where} does not run: {lines[-1]}", hint=HINT)
    release = int(version.removeprefix("1.").split(".")[0])
    if not OLDEST <= release <= NEWEST:
        raise UsageError(f"Hadoop does not run on the Java {release} of {where}", hint=HINT)
    return Java(Path(settings["java.home"]), release)
