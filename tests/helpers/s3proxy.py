"""An S3 that checks signatures and checksums: S3Proxy, which Maven fetches once, over a folder of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from processes import started
from s3_service import IDENTITY, SECRET, S3Service

from jobs.minicluster.assemble import cache_folder
from jobs.minicluster.java import find_java
from nnlib.core.errors import UsageError

POM = Path(__file__).parents[1] / "aws" / "s3proxy" / "pom.xml"
SECONDS = 120.0


def jars() -> Path:
    """The folder of the jars, there or not."""
    return cache_folder() / f"s3proxy-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


def lacking() -> str | None:
    """Why no S3Proxy can run here."""
    try:
        find_java()
    except UsageError as error:
        return error.message
    if not jars().is_dir() and shutil.which("mvn") is None:
        return "S3Proxy is fetched by Maven, and there is no mvn on PATH"
    return None


def assemble() -> Path:
    """The folder of the jars, which Maven fills now unless it is there."""
    folder = jars()
    if not folder.is_dir():
        made = folder.with_name(f".{folder.name}-{os.getpid()}")
        subprocess.run(["mvn", "-B", "-q", "-ntp", "-f", str(POM), f"-Dassembly={made}", "package"], check=True)
        made.rename(folder)
    return folder


@contextlib.contextmanager
def s3proxy(folder: Path) -> Iterator[S3Service]:
    """A running S3Proxy whose buckets are in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    settings = {
        "s3proxy.endpoint": endpoint,
        "s3proxy.authorization": "aws-v4",
        "s3proxy.identity": IDENTITY,
        "s3proxy.credential": SECRET,
        "jclouds.provider": "filesystem-nio2",
        "jclouds.identity": "none",
        "jclouds.credential": "none",
        "jclouds.filesystem.basedir": str(folder),
    }
    properties = folder.with_suffix(".properties")
    properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    folder.mkdir()
    command: list[str | Path] = [
        find_java().program,
        "-cp",
        f"{assemble()}/*",
        "org.gaul.s3proxy.Main",
        "--properties",
        properties,
    ]
    with folder.with_suffix(".log").open("wb") as log, started(command, stdout=log, stderr=log) as process:
        end = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < end, folder.with_suffix(".log").read_text()[-2000:]
            try:
                urllib.request.urlopen(endpoint, timeout=5)
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        yield S3Service(endpoint)
