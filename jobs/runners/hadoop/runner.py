"""mrjob's Hadoop runner, made to start one JVM a job: the client.

mrjob 0.7.4 runs ``hadoop version`` before every job, and starts a JVM for every access to HDFS; it ships its own code
and a shell script that wraps every task. Here the environment holds all code, `nnlib.storage` uploads the files, and
everything that a job needs lies in HDFS before it starts. The runner only builds the command line and reads the output.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mrjob.fs.composite import CompositeFilesystem
from mrjob.fs.hadoop import HadoopFilesystem
from mrjob.fs.local import LocalFilesystem
from mrjob.hadoop import HadoopJobRunner

from jobs.runners.hadoop.diagnosis import explain
from jobs.runners.hadoop.job_watch import watched
from jobs.runners.hadoop.kerberos_login import require_login
from jobs.runners.hadoop.kill import delete_staged, kill_application
from jobs.runners.hadoop.mrjob_filesystem import StorageFilesystem
from jobs.runners.hadoop.node_watch import NodeWatch
from jobs.runners.hadoop.submission import State, Submission, submit
from jobs.runners.hadoop.yarn_rest import ENDED, application
from jobs.runners.node_check import PREFLIGHT
from jobs.runners.request import JobRequest
from nnlib.config.schema import Hadoop
from nnlib.core.errors import JobError
from nnlib.core.events import Note
from nnlib.run.run_events import JobEvent, RunEvent
from nnlib.storage import has_scheme, storage

SUCCESS = "_SUCCESS"
"""The file that Hadoop's committer writes when all output is there."""

LINES = "org.apache.hadoop.mapred.lib.NLineInputFormat"
"""Cuts a file into map tasks by lines: the plan is one small file, however many workers there are."""

PROPERTY_NAMES_SINCE = "3.0.0"
"""The Hadoop version whose property names mrjob is to use; those of Hadoop 2 are the same. Asking would start a JVM."""


@dataclass(frozen=True, kw_only=True)
class HadoopJob:
    """A job as the cluster is to run it. ``in_master``: its tasks run in the container of its master (uber mode)."""

    request: JobRequest
    in_master: bool
    properties: Mapping[str, str]
    settings: Hadoop
    notify: Callable[[Note], None]
    record: Callable[[RunEvent], None]
    watch: NodeWatch
    submission: Submission = field(default_factory=Submission)


class HadoopRunner(HadoopJobRunner):  # type: ignore[misc]
    """Submits one job, waits for its end and reads its output."""

    job: HadoopJob

    @classmethod
    def for_job(cls, job: HadoopJob, options: dict[str, Any]) -> HadoopRunner:
        """Make the runner of a job from mrjob's options."""
        options = options | {"hadoop_input_format": LINES, "bootstrap_mrjob": False}
        if job.request.phase == PREFLIGHT:
            options |= {"steps": [{"type": "streaming", "mapper": {"type": "script"}}], "sort_values": False}
        runner = cls(**options)
        runner._upload_mgr = None  # mrjob's way into HDFS: nothing is left to go up
        runner.job = job
        return runner

    @cached_property
    def fs(self) -> CompositeFilesystem:
        system = CompositeFilesystem()
        system.add_fs("storage", StorageFilesystem())
        system.add_fs("hadoop", HadoopFilesystem(self._opts["hadoop_bin"] or None))  # finds the program
        system.add_fs("local", LocalFilesystem())  # finds the streaming jar
        return system

    def get_hadoop_version(self) -> str:
        return PROPERTY_NAMES_SINCE

    def _script_args_for_step(self, step_num: int, mrc: str, input_manifest: bool = False) -> list[str]:
        return [*self._task_python_bin(), "-m", self.job.request.job.__module__, *self._args_for_task(step_num, mrc)]

    def _file_arg_hash_paths(self, named_paths: Any = None, always_use_hash: bool = True) -> Iterator[str]:
        """Only files in HDFS: mrjob would also send the job's script, which is in the environment."""
        return (path for path in super()._file_arg_hash_paths(named_paths, always_use_hash) if has_scheme(path))

    def _upload_args(self) -> list[str]:
        """No arguments: Hadoop's ``-files`` and ``-archives`` refuse names with spaces, properties do not."""
        return []

    def _jobconf_for_step(self, step_num: int) -> dict[str, str]:
        """Ours, then mrjob's configuration file, then the experiment's ``runtime.hadoop.jobconf``."""
        ours = dict(self.job.properties)
        ours["mapreduce.job.cache.files"] = ",".join(self._file_arg_hash_paths())
        ours["mapreduce.job.cache.archives"] = ",".join(self._archive_arg_hash_paths())
        conf = {**ours, **super()._jobconf_for_step(step_num), **self.job.settings.jobconf}
        return {name: value for name, value in conf.items() if value != ""}

    def _args_for_streaming_step(self, step_num: int) -> list[str]:
        if not self.get_hadoop_streaming_jar():
            raise JobError(
                "cannot find Hadoop's streaming jar",
                hint="set HADOOP_HOME, or hadoop_streaming_jar in configs/mrjob/hadoop.conf",
            )
        arguments: list[str] = super()._args_for_streaming_step(step_num)
        return arguments

    def _run(self) -> None:
        yarn = os.path.join(os.path.dirname(self.get_hadoop_bin()[-1]), "yarn")  # noqa: PTH118, PTH120  (may be bare)
        environment = client_environment(self.job.settings.jvm_options)
        name, submission = self.job.request.name, self.job.submission
        require_login()
        try:
            with self.job.watch.watching(submission), watched(self.job.request, submission):
                status = submit(self._args_for_step(0), environment, yarn, submission)
        finally:
            if submission.state is State.LEFT:
                self._warn_of_left(str(submission.application))
        if status and self._has_succeeded(submission):
            self._warn(f"{name}: done, though its client failed (exit status {status})")
            status = 0
        self.job.record(
            JobEvent(
                job=name,
                application=submission.application,
                uber=self.job.in_master,
                map_attempts=submission.map_attempts,
                status=status,
                counters=submission.counters.get("nnjobs", {}),
                failed=list(dict.fromkeys(submission.failed)),
            )
        )
        if not status:
            return
        if submission.state is State.ENDED:
            error = JobError(f"{name} was ended")
        else:
            error = explain(submission, yarn, environment)
        if submission.application is not None:
            self._end(submission.application, yarn, environment)
        raise error

    def _has_succeeded(self, submission: Submission) -> bool:
        """Whether the job went well though its client failed, for example because the history server lost it."""
        name = submission.application
        if name is None or application(name, submission.web).get("finalStatus") != "SUCCEEDED":
            return False
        return SUCCESS in storage(self._output_dir).names()

    def _end(self, name: str, yarn: str, environment: Mapping[str, str]) -> None:
        """Delete what a failed application has staged, and end it where only its client has died: it would write to the
        same files as the next job."""
        submission = self.job.submission
        state = application(name, submission.web).get("state")
        if state in ENDED:
            delete_staged(name)  # its master may have died before it could
        elif submission.state is State.ENDED:
            return  # the session has killed it
        elif state is None:  # the cluster does not know it, or does not answer
            if submission.state is State.RUNNING:
                self._warn_of_left(name)
        elif not kill_application(name, submission.web, yarn, environment):
            self._warn_of_left(name)

    def _warn_of_left(self, name: str) -> None:
        self._warn(f"{name} may still run: yarn application -kill {name}")

    def _warn(self, text: str) -> None:
        self.job.notify(Note(text, "warning"))

    def cleanup(self, mode: Any = None) -> None:
        """Delete the job's output; everything else belongs to the session."""
        storage(self._output_dir).delete("")

    def lines(self) -> Iterable[bytes]:
        """Return the job's output. Raises `JobError` where Hadoop did not say that it is whole."""
        output = storage(self._output_dir)
        names = output.names()
        if SUCCESS not in names:
            raise JobError("the job's output is not whole: Hadoop wrote no _SUCCESS", output=self._output_dir)
        parts = (output.read(name) for name in names if name.startswith("part-"))
        return [line for part in parts for line in part.split(b"\n")[:-1]]


def client_environment(jvm_options: str) -> dict[str, str]:
    """Return the client's environment: JVM options for a program of seconds, and no unpacking of the streaming jar."""
    options = " ".join(filter(None, [os.environ.get("HADOOP_CLIENT_OPTS"), jvm_options]))
    return {**os.environ, "HADOOP_CLIENT_OPTS": options, "HADOOP_CLIENT_SKIP_UNJAR": "true"}
