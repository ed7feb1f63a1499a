"""Where a run's jobs on a cluster start from: a scratch folder in HDFS with the plan, the packed environment, settings.

Everything goes up once per run (the environment once per change of it: it stays, under its hash); what a round adds is
the model that its checkpoint writes anyway. Tasks get the model through the distributed cache, which copies a file once
to each node however many tasks run there, as it does with the environment.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.hadoop.environment import Environment, environment, escaped
from jobs.hadoop.preflight import PREFLIGHT, check_nodes, node_reports
from jobs.hadoop.resources import job_properties, task_resources, worth_uber
from jobs.hadoop.yarn import user
from nnlib.errors import ConfigError
from nnlib.ledger import canonical
from nnlib.plan import JobSpec, WorkerPlan
from nnlib.storage import file_at, storage

if TYPE_CHECKING:
    from jobs.job_request import RoundRequest

PLAN = "plan"
SPEC = "spec.json"
RUNS = "runs"
"""Folder of the runs' scratch folders, beside that of the environments."""


class HadoopSite:
    """The scratch folder of one run, from its making to `close`. ``note`` gets lines for people, ``record`` facts."""

    def __init__(
        self,
        spec: JobSpec,
        plans: Sequence[WorkerPlan],
        note: Callable[[str], None],
        record: Callable[..., None],
    ) -> None:
        refuse_local(spec)
        # A node has none of this machine's Hadoop configuration, which may say what hdfs:///... means.
        spec = replace(spec, dataset=replace(spec.dataset, address=storage(spec.dataset.address).root))
        self.spec, self.plans = spec, plans
        self.note, self.record = note, record
        self.settings = spec.config.runtime.hadoop
        self.checked = self.settings.preflight == "off"
        self._resources = task_resources(spec)
        self._jobs = 0
        base = storage(base_address(spec))
        with ExitStack() as stack:
            name = f"{RUNS}/{spec.config.name}-{secrets.token_hex(6)}"
            stack.callback(base.delete, name)
            self._scratch = storage(f"{base.root}/{name}")
            lines = "".join(f"{plan.to_line()}\n" for plan in plans)
            self._scratch.write_all({SPEC: canonical(spec.to_json()), PLAN: lines.encode()})
            self.environment: Environment = environment(spec.config.runtime, base, note)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Leave nothing of the run in the scratch folder."""
        self._stack.close()

    def uber(self, request: RoundRequest) -> bool:
        """Whether the job's tasks are to run in its master's container."""
        if self.settings.uber != "auto":
            return self.settings.uber == "on"
        return worth_uber(self.spec, len(request.active), len(request.epochs))

    def properties(self, request: RoundRequest, *, uber: bool) -> dict[str, str]:
        """The Hadoop properties of a job."""
        return job_properties(
            self.spec,
            self._resources,
            name=job_name(self.spec, request),
            reducers=0 if request.collective or request.phase == PREFLIGHT else 1 if uber else request.reducers,
            uber=uber,
            lines_per_map=self.spec.workers if uber else 1,
        )

    def options(self, request: RoundRequest) -> dict[str, Any]:
        """mrjob's options of a job: its files are addresses in HDFS, its input is the run's plan."""
        self._jobs += 1
        files = replace(
            request,
            spec=escaped(f"{self._scratch.root}/{SPEC}"),
            model=self._shipped(request.model),
            state=self._shipped(request.state),
        )
        conf = Path(self.settings.mrjob_conf)
        return {
            "conf_paths": [str(conf)] if conf.exists() else [],
            "extra_args": [*files.arguments(), "--report", *([] if self.checked else ["--check-node"])],
            "input_paths": [f"{self._scratch.root}/{PLAN}"],
            "output_dir": f"{self._scratch.root}/output-{self._jobs:06d}",
            "cmdenv": dict(self.environment.variables),
            "python_bin": list(self.environment.python),
            "upload_archives": list(self.environment.archives),
        }

    def hear_of_nodes(self, values: Iterable[bytes]) -> None:
        """Take in what the first job's tasks say of their nodes. Raises `JobError` where those do not fit together."""
        nodes = node_reports(values)
        if nodes:
            self.checked = True
            self.record(event="nodes", nodes=nodes)
            check_nodes(nodes, strict=self.spec.config.runtime.numerics == "strict")

    def _shipped(self, file: str | None) -> str | None:
        """A file's address for the distributed cache; of a run that is kept on this machine, a copy goes up first."""
        if file is None or "://" in file:
            return None if file is None else escaped(file)
        place, name = file_at(file)
        copy = f"job-{self._jobs:06d}/{name}"
        self._scratch.delete(f"job-{self._jobs - 1:06d}")
        self._scratch.write(copy, place.read(name))
        return escaped(f"{self._scratch.root}/{copy}")


def job_name(spec: JobSpec, request: RoundRequest) -> str:
    """What the cluster's pages call a job."""
    if request.phase != "train":
        return f"nnjobs {spec.config.name} {request.phase}"
    return f"nnjobs {spec.config.name} round {request.round + 1}/{request.rounds or '?'}"


def base_address(spec: JobSpec) -> str:
    """Where scratch folders and environments lie: as configured, or in the user's home on the dataset's cluster."""
    configured = spec.config.runtime.hadoop.scratch
    if configured is not None:
        return configured
    scheme, _, rest = spec.dataset.address.partition("://")
    host = rest.partition("/")[0] if scheme == "hdfs" else ""
    return f"hdfs://{host}/user/{user()}/.nnjobs"


def refuse_local(spec: JobSpec) -> None:
    """A path names a file of this machine: the cluster's nodes would look for it on theirs."""
    if "://" not in spec.config.data.path:
        raise ConfigError(
            "the nodes of a cluster cannot read a dataset on this machine",
            hint="import it into HDFS (nnjobs data import ... -o hdfs:///...), or, where all nodes share the file "
            "system, say file:///...",
            key="data.path",
        )
