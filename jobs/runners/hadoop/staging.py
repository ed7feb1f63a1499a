"""The staging folder in HDFS: what the jobs of one command need, and the environment that their tasks run in.

Everything is uploaded once per command (the environment once per change: it stays there, under its hash). Tasks get
files through the distributed cache, which copies a file once to each node however many tasks run there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs.runners.hadoop.orphans import folder_name, sweep
from jobs.runners.hadoop.task_environment import Environment, environment, escaped
from nnlib.config.schema import Hadoop, Runtime
from nnlib.core.errors import ConfigError
from nnlib.core.events import Note
from nnlib.storage import Access, Storage, file_at, has_scheme, storage
from nnlib.storage.hdfs.hadoop_config import other_servers, wants_kerberos
from nnlib.storage.hdfs.hadoop_user import hadoop_user

RUNS = "runs"
"""Folder of all commands' staging folders, next to that of the environments."""


class Staging:
    """The folder, from its making to `close`.

    ``near`` is an address on the cluster that the jobs read; ``notify`` takes notes for people. ``run`` is the run
    whose lock the command holds, if any: what that run's earlier drivers have left is cleared away. ``distributions``
    go into a packed environment besides those that every task needs; ``access`` is to what tasks read and write.
    """

    def __init__(
        self,
        runtime: Runtime,
        near: str,
        notify: Callable[[Note], None],
        *,
        run: str | None = None,
        distributions: Sequence[str] = (),
        access: Access | None = None,
    ) -> None:
        self._settings = runtime.hadoop
        self._jobs = 0
        base = staging_base(self._settings, near)
        sweep(base, RUNS, run, notify)
        self._tag = folder_name(run)
        self._servers = other_servers([near, *([] if run is None else [run])]) if wants_kerberos() else []
        with ExitStack() as stack:
            folder = f"{RUNS}/{self._tag}"
            stack.callback(base.delete, folder)
            # Private to its owner, as the run directory is: jobs' output is the model. (In a file system that all nodes
            # mount, tasks may run as another user of the system.)
            self.storage = storage(f"{base.root}/{folder}", private=base.is_remote)
            # Where all nodes share a file system it can be a folder there, which mrjob would take for one of HDFS.
            self.root = self.storage.uri
            self.environment = environment(runtime, base, notify, distributions, access)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Delete the folder."""
        self._stack.close()

    def address(self, name: str) -> str:
        """Return the address of a file of the folder, for the distributed cache."""
        return escaped(f"{self.root}/{name}")

    def next_job(self) -> None:
        """Begin another job: files that are shipped from now on are for it."""
        self._jobs += 1

    def shipped(self, file: str) -> str:
        """Return a file's address for the distributed cache; one that Hadoop cannot read is uploaded first, for this
        job."""
        source, name = file_at(file)
        if has_scheme(file) and (source.is_read_by_hadoop or not source.is_remote):
            return escaped(file)
        copy = f"job-{self._jobs:06d}/{name}"
        self.storage.delete(f"job-{self._jobs - 1:06d}")
        self.storage.write(copy, source.read(name))
        return self.address(copy)

    def options(self, plan: str, arguments: Sequence[Any]) -> dict[str, Any]:
        """Return mrjob's options for a job whose tasks read lines of the file ``plan`` with these arguments."""
        return fixed_options(self._settings, self.environment) | {
            "extra_args": list(arguments),
            "input_paths": [f"{self.root}/{plan}"],
            "output_dir": f"{self.root}/output-{self._jobs:06d}",
            "jobconf": {
                "mapreduce.job.tags": self._tag,  # by which a dead driver's applications are found
                "mapreduce.job.hdfs-servers": ",".join(self._servers),  # without it no job has their tokens
            },
        }


def fixed_options(settings: Hadoop, environment: Environment) -> dict[str, Any]:
    """Return mrjob's options that all jobs with the same settings and environment have."""
    conf = Path(settings.mrjob_conf)
    return {
        "conf_paths": [str(conf)] if conf.exists() else [],
        "cmdenv": dict(environment.variables),
        "python_bin": list(environment.python),
        "upload_archives": list(environment.archives),
        "upload_files": list(environment.files),
    }


def staging_base(settings: Hadoop, near: str) -> Storage:
    """Return the folder of staging folders and environments. Raises `ConfigError` for one that Hadoop cannot read."""
    base = storage(base_address(settings, near))
    if base.is_remote and not base.is_read_by_hadoop:
        raise ConfigError(
            "Hadoop's own programs read the plans of jobs: they must be in its file system",
            hint="leave the key out, or name a folder in HDFS (hdfs:///...)",
            key="runtime.hadoop.scratch",
        )
    return base


def base_address(settings: Hadoop, near: str) -> str:
    """Return the folder of staging folders and environments.

    It is ``runtime.hadoop.scratch``, or lies in the user's home on the cluster of the address ``near``.
    """
    if settings.scratch is not None:
        return settings.scratch
    scheme, _, rest = near.partition("://")
    host = rest.partition("/")[0] if scheme == "hdfs" else ""
    return f"hdfs://{host}/user/{hadoop_user()}/.nnjobs"
