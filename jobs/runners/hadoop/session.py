"""Where a run's jobs on a cluster start from: its scratch folder with the plan, and what its jobs ask of the cluster.

What a round adds to what went up before the first is the model that its checkpoint writes anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.mapreduce.demand import task_resources, worth_uber
from jobs.runners.hadoop.container_sharing import workers_per_task
from jobs.runners.hadoop.job_properties import job_properties
from jobs.runners.hadoop.kill import kill_application, kill_attempt
from jobs.runners.hadoop.staging import Scratch
from jobs.runners.hadoop.submission import Submission
from jobs.runners.hadoop.yarn_rest import program
from jobs.runners.node_check import PREFLIGHT, check_nodes, node_reports
from nnlib.core.errors import ConfigError
from nnlib.run.ledger import canonical
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.storage import storage

if TYPE_CHECKING:
    from jobs.mapreduce.request import RoundRequest

PLAN = "plan"
SPEC = "spec.json"


class HadoopSite:
    """The scratch folder of one run, from its making to `close`. ``note`` gets lines for people, ``record`` facts."""

    def __init__(
        self,
        spec: JobSpec,
        plans: Sequence[WorkerPlan],
        note: Callable[[str], None],
        record: Callable[..., None],
        run: str | None = None,
    ) -> None:
        """``run`` is the run whose lock the driver holds, if it has one yet."""
        refuse_local(spec)
        # A node has none of this machine's Hadoop configuration, which may say what hdfs:///... means.
        spec = replace(spec, dataset=replace(spec.dataset, address=storage(spec.dataset.address).root))
        self.spec, self.plans = spec, plans
        self.note, self.record = note, record
        self.settings = spec.config.runtime.hadoop
        self.checked = self.settings.preflight == "off"
        self.submission: Submission | None = None
        self._resources = task_resources(spec)
        lines = "".join(f"{plan.to_line()}\n" for plan in plans)
        files = {SPEC: canonical(spec.to_json()), PLAN: lines.encode()}
        self._scratch = Scratch(spec.config.runtime, spec.dataset.address, files, note, run=run)
        self.close = self._scratch.close

    def uber(self, request: RoundRequest) -> bool:
        """Whether the job's tasks are to run in its master's container."""
        if request.collective:
            return False  # there tasks take turns, but a group's must run at once
        if request.phase == PREFLIGHT and self.settings.uber == "auto":
            return False  # to see as many nodes as there are workers
        if self.settings.uber != "auto":
            return self.settings.uber == "on"
        return worth_uber(self.spec, len(request.active), len(request.epochs))

    def properties(self, request: RoundRequest, *, uber: bool) -> dict[str, str]:
        """The Hadoop properties of a job."""
        shared = workers_per_task(self.spec) if request.collective and request.phase != PREFLIGHT else 1
        own = job_properties(
            self.spec.config.runtime,
            self.spec.workers,
            self._resources if shared == 1 else task_resources(self.spec, shared),
            name=job_name(self.spec, request),
            reducers=0 if request.collective or request.phase == PREFLIGHT else 1 if uber else request.reducers,
            uber=uber,
            lines_per_map=self.spec.workers if uber else shared,
        )
        if request.collective:
            # A second attempt beside the first would take its place in the group, and the group meet anew.
            own["mapreduce.map.speculative"] = "false"
        if request.spare and not uber:
            # Rounded up, for Hadoop fails a job with more than so many; the driver counts who is there.
            own.setdefault("mapreduce.map.failures.maxpercent", str(-(-100 * request.spare // self.spec.workers)))
        return own

    def options(self, request: RoundRequest) -> dict[str, Any]:
        """mrjob's options of a job: its files are addresses in HDFS, its input is the run's plan."""
        self._scratch.next_job()
        if request.phase == PREFLIGHT:  # the job that asked for it has sent its own model already
            request = replace(request, model=None, state=None)
        files = replace(
            request,
            spec=self._scratch.address(SPEC),
            model=None if request.model is None else self._scratch.shipped(request.model),
            state=None if request.state is None else self._scratch.shipped(request.state),
        )
        asks = self.settings.preflight != "job" or request.phase == PREFLIGHT
        asked = ["--check-node"] if asks and not self.checked else []
        return self._scratch.options(PLAN, [*files.arguments(), "--report", *asked])

    def end_task(self, attempt: str) -> None:
        """End an attempt of the running job's tasks; Hadoop starts another."""
        if self.submission is not None:
            kill_attempt(attempt, self.submission.web, program("mapred"), os.environ)

    def end_job(self) -> None:
        """End the job that runs; who waits for it gets a `JobError`."""
        said = self.submission
        if said is not None:
            said.ended = True
            if said.application is not None:
                kill_application(said.application, said.web, program("yarn"), os.environ)

    def hear_of_nodes(self, values: Iterable[bytes]) -> None:
        """Take in what the first job's tasks say of their nodes. Raises `JobError` where those do not fit together."""
        nodes = node_reports(values)
        if nodes:
            self.checked = True
            self.record(event="nodes", nodes=nodes)
            check_nodes(nodes, strict=self.spec.config.runtime.numerics == "strict")


def job_name(spec: JobSpec, request: RoundRequest) -> str:
    """What the cluster's pages call a job."""
    if request.phase != "train":
        return f"nnjobs {spec.config.name} {request.phase}"
    return f"nnjobs {spec.config.name} round {request.round + 1}/{request.rounds or '?'}"


def refuse_local(spec: JobSpec) -> None:
    """A path names a file of this machine: the cluster's nodes would look for it on theirs."""
    if "://" not in spec.config.data.path:
        raise ConfigError(
            "the nodes of a cluster cannot read a dataset on this machine",
            hint="import it into HDFS (nnjobs data import ... -o hdfs:///...), or, where all nodes share the file "
            "system, say file:///...",
            key="data.path",
        )
