"""The hadoop runner's session: its staging folder on the cluster, and the jobs that it submits.

What a job adds to what is staged already is a model or a plan; all else went up before the first job.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property

from jobs.runners.hadoop.cluster_settings import ClusterSettings, read_cluster_settings
from jobs.runners.hadoop.container_sharing import workers_per_task
from jobs.runners.hadoop.diagnosis import FailedJobError
from jobs.runners.hadoop.gpus import gpu_properties, require_gpus
from jobs.runners.hadoop.job_properties import MASTER_HEAP_MB, UBER_MAPS, container, job_properties, require_fit
from jobs.runners.hadoop.kill import kill_application, kill_attempt
from jobs.runners.hadoop.node_watch import NodeWatch
from jobs.runners.hadoop.runner import HadoopJob, HadoopRunner
from jobs.runners.hadoop.staging import Staging
from jobs.runners.hadoop.submission import State, Submission
from jobs.runners.hadoop.yarn_rest import program, resource_manager
from jobs.runners.lines import Line
from jobs.runners.mrjob_options import mrjob_options, run_mrjob
from jobs.runners.node_check import NODE_KEY, PREFLIGHT, check_nodes, node_reports
from jobs.runners.request import JobRequest
from jobs.runners.session import Session, SessionOptions
from nnlib.core.events import Note
from nnlib.core.scratch import scratch_folder
from nnlib.run.run_events import NodesEvent


class HadoopSession(Session):
    """Submits jobs to a cluster, each by one ``hadoop jar``."""

    slots = None

    def __init__(self, options: SessionOptions) -> None:
        super().__init__()
        self._runtime, self._settings = options.runtime, options.runtime.hadoop
        self._notify, self._record = options.notify, options.record
        self._nodes_are_known = self._settings.preflight == "off"
        self._gpus_are_known = False
        self._watch = NodeWatch(lambda: self._cluster, options.notify)
        self._submission: Submission | None = None
        self._running: str | None = None
        self._arrangement = ""
        self._lines: Sequence[str] = ()
        self._plans = 0
        with ExitStack() as stack:
            self._folder = stack.enter_context(scratch_folder())
            self._staging = Staging(
                options.runtime,
                options.near,
                options.notify,
                run=options.run,
                distributions=options.distributions,
                access=options.access,
            )
            stack.callback(self._staging.close)
            self._stack = stack.pop_all()
        self.shared = self._staging.storage

    @cached_property
    def _cluster(self) -> ClusterSettings:
        return read_cluster_settings()

    @property
    def loss_seconds(self) -> float:
        return self._cluster.node_expiry_seconds

    def put(self, name: str, data: bytes) -> str:
        self.shared.write(name, data)
        return self.address(name)

    def address(self, name: str = "") -> str:
        return f"{self._staging.root}/{name}" if name else self._staging.root

    def run(self, job: JobRequest) -> Iterator[Line]:
        if self._settings.preflight == "job" and job.job.reports_node and not self._nodes_are_known:
            yield from self._run(_preflight_of(job))
        yield from self._run(job)

    def _run(self, job: JobRequest) -> Iterator[Line]:
        in_master = self._fits_into_master(job)
        try:
            lines = self._submit(job, in_master)
        except FailedJobError as error:
            # In the master's container Hadoop tries no task a second time, so the whole job is submitted again.
            if not in_master or self._settings.uber == "on" or error.lasting:
                raise
            first = error.message.splitlines()[0]
            self._notify(Note(f"{job.name}: {first}; trying again in containers", "warning"))
            lines = self._submit(job, in_master=False)
        self._check_nodes(value for key, value in lines if key == NODE_KEY)
        return (line for line in lines if line[0] != NODE_KEY)

    def _submit(self, request: JobRequest, in_master: bool) -> list[Line]:
        """Run a job to its end; return its output lines."""
        is_preflight = request.phase == PREFLIGHT
        if (gpus := self._gpus(request)) and not self._gpus_are_known:
            require_gpus(gpus, resource_manager())
            self._gpus_are_known = True
        shared = 1
        if request.is_collective and not is_preflight:
            shared = workers_per_task(self._runtime, request.demand, len(request.lines), self._cluster)
        if not is_preflight:
            self._show_arrangement(request, shared, in_master)
        job = HadoopJob(
            request=request,
            in_master=in_master,
            properties=self._properties(request, shared, in_master),
            settings=self._settings,
            notify=self._notify,
            record=self._record,
            watch=self._watch,
        )
        self._submission, self._running = job.submission, request.name
        arguments = self._arguments(request)
        options = mrjob_options(request, self._folder, self._runtime.blas_threads)
        options |= self._staging.options(self._plan_of(request.lines), arguments)
        try:
            return list(run_mrjob(HadoopRunner.for_job(job, options), request))
        finally:
            self._running = None

    def _fits_into_master(self, job: JobRequest) -> bool:
        """Whether the job's tasks are to run in the container of its master (uber mode)."""
        if job.is_collective or self._gpus(job):
            return False  # there tasks take turns, but those of a group must run at once; and a master has no GPU
        if self._settings.uber != "auto":
            return self._settings.uber == "on"
        if job.phase == PREFLIGHT:
            return False  # to see as many nodes as there are workers
        master_mb = container(self._runtime, job.demand).memory_mb + MASTER_HEAP_MB
        has_room = self._cluster.largest_mb is None or master_mb <= self._cluster.largest_mb
        return job.is_small and len(job.lines) <= UBER_MAPS and has_room

    def _properties(self, job: JobRequest, shared: int, in_master: bool) -> dict[str, str]:
        """The Hadoop properties of a job of which ``shared`` lines are one map task. Raises `JobError` where the
        cluster has no containers that are large enough."""
        tasks = len(job.lines)
        size = container(self._runtime, job.demand, shared)
        require_fit(size, self._cluster)
        properties = job_properties(
            self._runtime,
            tasks,
            size,
            name=job.title,
            reducers=min(job.reducers, 1) if in_master else job.reducers,
            uber=in_master,
            lines_per_map=tasks if in_master else shared,
        )
        for name, value in gpu_properties(self._gpus(job)).items():
            properties.setdefault(name, value)
        if job.is_collective:
            # A second attempt beside the first would take its place in the group, and the group meet anew.
            properties["mapreduce.map.speculative"] = "false"
        if job.spare and not in_master:
            # Rounded up, because Hadoop fails a job with more failures than that; the driver counts who is there.
            properties.setdefault("mapreduce.map.failures.maxpercent", str(-(-100 * job.spare // tasks)))
        return properties

    def _gpus(self, job: JobRequest) -> int:
        """The GPUs of a map task's container; only tasks of learners use any."""
        return self._settings.gpus if job.job.reports_node else 0

    def _arguments(self, job: JobRequest) -> list[object]:
        """The tasks' arguments; what they read from this machine is staged first."""
        self._staging.next_job()
        files = {option: file and self._staging.shipped(file) for option, file in job.files.items()}
        asks = job.job.reports_node and (self._settings.preflight != "job" or job.phase == PREFLIGHT)
        check = ["--check-node"] if asks and not self._nodes_are_known else []
        return [*replace(job, files=files).arguments(), "--report", *check]

    def _plan_of(self, lines: Sequence[str]) -> str:
        """The name of the staged plan, written anew only when it changes: a task of an older job may still read."""
        if lines != self._lines:
            self._plans += 1
            self._lines = lines
            self.shared.write(f"plan-{self._plans}", "".join(f"{line}\n" for line in lines).encode())
        return f"plan-{self._plans}"

    def _show_arrangement(self, job: JobRequest, shared: int, in_master: bool) -> None:
        """Say how the workers are put into containers, whenever that changes."""
        workers = len(job.lines)
        count = f"{workers} {'task' if job.round is None else 'worker'}{'s' * (workers > 1)}"
        containers = -(-workers // shared)
        if in_master:
            text = f"{count} in the container of the job's master, one after the other (uber mode)"
        elif shared == 1:
            text = f"{count} in {'containers of their own' if workers > 1 else 'a container of its own'}"
        else:
            most = f" of up to {shared}" if workers % shared else f" of {shared}"
            text = f"{count} in {f'{containers} containers{most}' if containers > 1 else 'one container'}"
        if text != self._arrangement:
            self._arrangement = text
            self._notify(Note(text))

    def _check_nodes(self, reports: Iterable[bytes]) -> None:
        """Take what the first job's tasks report of their nodes. Raises `JobError` where those do not fit together."""
        nodes = node_reports(reports)
        if nodes:
            self._nodes_are_known = True
            self._record(NodesEvent(nodes))
            check_nodes(nodes, strict=self._runtime.numerics == "strict")

    def end_task(self, worker: int, attempt: str) -> None:
        if self._submission is not None:
            kill_attempt(attempt, self._submission.web, program("mapred"), os.environ)

    def end_job(self) -> None:
        submission = self._submission
        if submission is not None:
            submission.state = State.ENDED
            if submission.application is not None:
                kill_application(submission.application, submission.web, program("yarn"), os.environ)

    @property
    def job(self) -> str | None:
        return self._running

    @property
    def application(self) -> str | None:
        return None if self._running is None or self._submission is None else self._submission.application

    @property
    def queued(self) -> bool:
        return self._submission is not None and self._submission.state is State.RUNNING


def _preflight_of(job: JobRequest) -> JobRequest:
    """The job that only asks what the nodes are like. It needs no model: the job that follows sends it."""
    files = {option: file for option, file in job.files.items() if option == "--spec"}
    name = job.name.replace(job.phase, PREFLIGHT, 1)
    return replace(job, phase=PREFLIGHT, name=name, label=PREFLIGHT, files=files, reducers=0)
