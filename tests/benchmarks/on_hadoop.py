"""Where the benchmarks on Hadoop run: a cluster, and what they need in its HDFS."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jobs.__main__ import main as nnjobs
from jobs.minicluster.cluster import Cluster
from nnlib.storage import storage


@contextmanager
def hadoop() -> Iterator[tuple[str, Path]]:
    """An address in HDFS with the digits under ``/digits``, and a folder on this machine; both are deleted at the end.

    The cluster is the one that HADOOP_HOME and HADOOP_CONF_DIR name, else a new one.
    """
    with ExitStack() as stack:
        if "HADOOP_HOME" not in os.environ or "HADOOP_CONF_DIR" not in os.environ:
            own = Cluster(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hadoop-"))))
            stack.callback(own.stop, delete=True)
            own.start()
            os.environ |= own.settings.environment()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nnjobs-bench-")))
        base = f"hdfs:///user/{os.environ.get('USER', 'bench')}/nnjobs-bench-{os.getpid()}"
        stack.callback(storage(base).delete, "")
        if code := nnjobs(["data", "import", "digits", "-o", f"{base}/digits", "--shards", "8"]):
            raise SystemExit(code)
        yield base, folder
