"""Somebody at the client's host of a cluster with Kerberos, and the data of the tests there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hosts import REPOSITORY
from kerberos_cluster import USER, KerberosCluster
from scene import EXPERIMENT, MINUTES

HOME = f"hdfs:///user/{USER}"
ROUNDS = {**EXPERIMENT, "data": {"path": f"{HOME}/data"}}
PYTHON = f"env PYTHONPATH={REPOSITORY} {sys.executable}"


class Person:
    """Somebody at the client's host, in a folder, with a ticket (or the path of none)."""

    def __init__(self, cluster: KerberosCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.ticket = folder / "ticket"

    def kinit(self, *options: str) -> None:
        self.cluster.kinit(USER, self.cluster.user_keys, self.ticket, *options)

    def config(self, changes: Mapping[str, Any] | None = None, **runtime: Any) -> str:
        """The path of a configuration: `EXPERIMENT` with other sections, and keys of ``runtime.hadoop``."""
        hadoop = {"python_bin": PYTHON, **runtime}
        path = self.folder / "run.yaml"
        cache = {"cache_dir": str(self.folder / "cache")}
        path.write_text(
            json.dumps({**ROUNDS, **(changes or {}), "runtime": {**cache, "hadoop": hadoop}}), encoding="utf-8"
        )
        return str(path)

    def run(self, *arguments: str, seconds: float = 3 * MINUTES) -> subprocess.CompletedProcess[str]:
        return self.cluster.nnjobs(*arguments, ticket=self.ticket, cwd=self.folder, seconds=seconds)

    def model(self, *arguments: str) -> str:
        """The weights' hash of a training that goes well."""
        done = self.run("train", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout.splitlines()[-1])["model_sha256"])

    def write_data(self) -> None:
        """Put the tests' dataset into HDFS, from the client's host."""
        path = [str(REPOSITORY / "tests" / folder) for folder in ("integration", "helpers")]
        script = f"import sys; sys.path[:0] = {path}\nfrom scene import write_data\nwrite_data({HOME + '/data'!r})"
        done = self.cluster.python("-c", script, ticket=self.ticket, cwd=self.folder, seconds=MINUTES)
        assert done.returncode == 0, done.stderr
