"""mrjob's Hadoop runner, made to start one JVM a job: the client.

mrjob 0.7.4 asks ``hadoop version`` before every job, and starts a JVM for every look at HDFS; it ships its own code and
a shell script that wraps every task. Here the environment holds all code, files go by storage, and everything that a
job needs lies in HDFS before it starts, so that the runner has only to build the command line and read the output.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from jobs.runners.mrjob_compat import prepare_mrjob

prepare_mrjob()

from mrjob.fs.composite import CompositeFilesystem  # noqa: E402  (needs the shims above on Python 3.13)
from mrjob.fs.hadoop import HadoopFilesystem  # noqa: E402
from mrjob.fs.local import LocalFilesystem  # noqa: E402
from mrjob.hadoop import HadoopJobRunner  # noqa: E402

from jobs.runners.hadoop.diagnosis import FailedJobError, explain  # noqa: E402
from jobs.runners.hadoop.kill import delete_staged, kill_application  # noqa: E402
from jobs.runners.hadoop.mrjob_filesystem import StorageFilesystem  # noqa: E402
from jobs.runners.hadoop.submission import Submission, submit  # noqa: E402
from jobs.runners.hadoop.yarn_rest import ENDED, application  # noqa: E402
from jobs.runners.node_check import (  # noqa: E402
    NODE_KEY,
    PREFLIGHT,
)
from jobs.runners.request import ClusterSite, JobRequest  # noqa: E402
from nnlib.core.errors import JobError  # noqa: E402
from nnlib.storage import storage  # noqa: E402

SUCCESS = "_SUCCESS"
"""Hadoop's committer writes it when all output is there."""

LINES = "org.apache.hadoop.mapred.lib.NLineInputFormat"
"""Cuts a file into map tasks by lines: the plan is one small file, however many workers there are."""

PROPERTY_NAMES_SINCE = "3.0.0"
"""The Hadoop whose names of properties mrjob is to use; those of Hadoop 2 are the same. Asking costs a JVM."""


class HadoopRunner(HadoopJobRunner):  # type: ignore[misc]
    """One job on a cluster."""

    site: ClusterSite
    request: JobRequest
    common: dict[str, Any]
    uber: bool

    @classmethod
    def for_request(cls, request: JobRequest, common: dict[str, Any]) -> HadoopRunner:
        """The runner of a job; ``common`` are mrjob's options that all our runners share."""
        assert request.site is not None
        options = common | request.site.options(request)
        options |= {"hadoop_input_format": LINES, "bootstrap_mrjob": False}
        if request.phase == PREFLIGHT:
            options |= {"steps": [{"type": "streaming", "mapper": {"type": "script"}}], "sort_values": False}
        job = cls(**options)
        job.common = common
        job._upload_mgr = None  # mrjob's way into HDFS: nothing is left to go up
        job.site, job.request, job.uber = request.site, request, request.site.uber(request)
        return job

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
        return [*self._task_python_bin(), "-m", self.request.job.__module__, *self._args_for_task(step_num, mrc)]

    def _file_arg_hash_paths(self, named_paths: Any = None, always_use_hash: bool = True) -> Iterator[str]:
        """Only what lies in HDFS: mrjob would send the job's script, too, which the environment has."""
        return (path for path in super()._file_arg_hash_paths(named_paths, always_use_hash) if "://" in path)

    def _upload_args(self) -> list[str]:
        """None: Hadoop's ``-files`` and ``-archives`` refuse names with spaces, the properties they set do not."""
        return []

    def _jobconf_for_step(self, step_num: int) -> dict[str, str]:
        """Ours, then mrjob's configuration file, then the experiment's ``runtime.hadoop.jobconf``."""
        ours = self.site.properties(self.request, uber=self.uber)
        ours["mapreduce.job.cache.files"] = ",".join(self._file_arg_hash_paths())
        ours["mapreduce.job.cache.archives"] = ",".join(self._archive_arg_hash_paths())
        conf = {**ours, **super()._jobconf_for_step(step_num), **self.site.settings.jobconf}
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
        if self.site.settings.preflight == "job" and not self.site.checked and self.request.phase != PREFLIGHT:
            with HadoopRunner.for_request(replace(self.request, phase=PREFLIGHT), self.common) as preflight:
                preflight.run()
                preflight.lines()
        try:
            self._submit()
        except FailedJobError as error:
            # In the master's container Hadoop tries no task a second time, so there the job has to be.
            if not self.uber or self.site.settings.uber == "on" or error.lasting:
                raise
            self.site.note(f"{self.request.name}: {error.message.splitlines()[0]}; trying again in containers")
            storage(self._output_dir).delete("")
            self.uber = False
            self._submit()

    def _submit(self) -> None:
        yarn = os.path.join(os.path.dirname(self.get_hadoop_bin()[-1]), "yarn")  # noqa: PTH118, PTH120  (may be bare)
        environment = client_environment(self.site.settings.jvm_options)
        self.site.submission = said = Submission()
        try:
            status = submit(self._args_for_step(0), environment, yarn, said)
        finally:
            if said.left:
                self._note_left(str(said.application))
        if status and self._succeeded(said):
            self.site.note(f"{self.request.name}: done, though its client was not told (exit status {status})")
            status = 0
        self.site.record(
            event="job",
            job=self.request.name,
            application=said.application,
            uber=self.uber,
            map_attempts=said.map_attempts,
            status=status,
            counters=said.counters.get("nnjobs", {}),
            failed=list(dict.fromkeys(said.failed)),
        )
        if status:
            error = JobError(f"{self.request.name} was ended") if said.ended else explain(said, yarn, environment)
            if said.application is not None:
                self._end(said.application, said, yarn, environment)
            raise error

    def _succeeded(self, said: Submission) -> bool:
        """Whether the job went well though its client failed: where the history server has nothing of it, say."""
        if said.application is None or application(said.application, said.web).get("finalStatus") != "SUCCEEDED":
            return False
        return SUCCESS in storage(self._output_dir).names()

    def _end(self, name: str, said: Submission, yarn: str, environment: Mapping[str, str]) -> None:
        """Leave nothing of a failed application, nor let it go on where only its client has died: it would write where
        the next one does."""
        state = application(name, said.web).get("state")
        if state in ENDED:
            delete_staged(name)  # its master may have died before it could
        elif said.ended:
            return  # the driver's watch has seen to it
        elif state is None:  # nobody knows it, or nobody answers
            if said.submitted:
                self._note_left(name)
        elif not kill_application(name, said.web, yarn, environment):
            self._note_left(name)

    def _note_left(self, name: str) -> None:
        self.site.note(f"{name} may still run: yarn application -kill {name}")

    def cleanup(self, mode: Any = None) -> None:
        """The job's output goes; everything else belongs to the run."""
        storage(self._output_dir).delete("")

    def lines(self) -> Iterable[bytes]:
        """The job's output. Raises `JobError` where Hadoop did not say that it is whole."""
        place = storage(self._output_dir)
        names = place.names()
        if SUCCESS not in names:
            raise JobError("the job's output is not whole: Hadoop wrote no _SUCCESS", output=self._output_dir)
        parts = (place.read(name) for name in names if name.startswith("part-"))
        lines = [line for part in parts for line in part.split(b"\n")[:-1]]
        self.site.hear_of_nodes(line.partition(b"\t")[2] for line in lines if line.startswith(NODE_KEY))
        return (line for line in lines if not line.startswith(NODE_KEY))


def client_environment(jvm_options: str) -> dict[str, str]:
    """The client's: JVM options for a program of seconds, and no unpacking of the streaming jar."""
    options = " ".join(filter(None, [os.environ.get("HADOOP_CLIENT_OPTS"), jvm_options]))
    return {**os.environ, "HADOOP_CLIENT_OPTS": options, "HADOOP_CLIENT_SKIP_UNJAR": "true"}
