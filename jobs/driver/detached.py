"""Starts a driver on the cluster (``nnjobs train --detach``); the machine that does so may be switched off then."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.driver.detached_job import PHASE, DetachedJob, DriverPlan
from jobs.runners.addresses import reachable
from jobs.runners.hadoop.background import submit_in_background, tasks_environment
from jobs.runners.hadoop.diagnosis import explain
from jobs.runners.hadoop.job_watch import job_text
from jobs.runners.hadoop.kerberos_login import use_keytab
from jobs.runners.hadoop.kill import kill_application
from jobs.runners.hadoop.submission import Submission
from jobs.runners.hadoop.yarn_rest import ENDED, application, program
from jobs.runners.request import JobRequest, TaskDemand
from nnlib.config.code_trust import codes_of
from nnlib.config.kinds import distributions_of
from nnlib.config.render import to_yaml
from nnlib.config.runners import runner_named
from nnlib.config.schema import Config
from nnlib.config.sweep import combinations
from nnlib.core.errors import BusyError, ConfigError, JobError, UsageError
from nnlib.core.events import Note
from nnlib.core.interrupts import uninterrupted
from nnlib.core.waiting import waiting_for
from nnlib.data.dataset import Dataset
from nnlib.models import build_model
from nnlib.run.detached_driver import (
    DRIVER,
    DetachedDriver,
    read_driver_error,
    write_detached_driver,
)
from nnlib.run.directory import RunDirectory
from nnlib.run.lease import driver_of
from nnlib.run.run_state import RunState, run_state
from nnlib.storage import Storage, has_scheme, is_remote_address, storage
from nnlib.storage.hdfs.hadoop_config import properties

CLIENT_MB = 512
"""Memory of Hadoop's client, a JVM beside the driver that submits one job after the other."""
DRIVER_MB = 256
"""Memory of a driver besides Python and its models: the records of workers, journals."""
MODEL_COPIES = 10
"""A driver holds a model about this many times: the checkpoint before, the average, the outer step, files to write."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class DetachedRun:
    """A run that a job of the cluster drives: its address, the job's application, and how the run was when its driver
    had begun."""

    run_dir: str
    application: str
    state: RunState


def detach(config: Config, *, resume: bool, start_from: str | None, notify: Callable[[Note], None]) -> DetachedRun:
    """Start a job of one map task that drives the run, and return when the driver has begun (or ended).

    Ctrl-C before that ends the job. Raises `UsageError` for what a driver on the cluster could not read or write,
    `BusyError` where a driver works on the run, and what the driver itself says if it cannot begin.
    """
    use_keytab(config.runtime)
    config = _readable(config, start_from)
    run = RunDirectory(str(config.run_dir))
    if not resume:
        run.refuse_if_exists()
    driver = driver_of(run.storage)
    if driver is not None and driver.is_alive:
        raise BusyError(
            f"another driver is training this run: process {driver.process} on {driver.host}",
            hint="nnjobs status shows how far it is, nnjobs cancel ends it",
            run=run.address,
        )
    before = None if driver is None else driver.name
    dataset = Dataset.open(config.data.path)
    run.storage.delete(DRIVER)
    home = storage(f"{run.address}/{DRIVER}/{secrets.token_hex(4)}", private=True)
    distributions = distributions_of(each.model for each in _combinations(config))
    environment = tasks_environment(config.runtime, config.data.path, notify, distributions)
    plan = DriverPlan(
        run=run.address,
        home=home.root,
        start_from=start_from,
        python=environment.python,
        archives=environment.archives,
        variables=environment.variables,
        files=environment.files,
        mrjob_conf=_mrjob_conf(config),
    )
    home.write("config.yaml", to_yaml(config).encode())
    request = _request(config, dataset, plan)
    submission = submit_in_background(config.runtime, request, home, environment, notify, run=run.address)
    name = str(submission.application)
    try:
        write_detached_driver(run.storage, DetachedDriver(name, time.time()))
        state = _begun(run.address, home, request, submission, before)
    except KeyboardInterrupt:
        with uninterrupted():
            kill_application(name, submission.web, program("yarn"), os.environ)
        raise
    return DetachedRun(run.address, name, state)


def _readable(config: Config, start_from: str | None) -> Config:
    """The configuration with addresses that every node understands. Raises `UsageError` for any that only this machine
    does."""
    if not runner_named(config.runtime.runner).is_remote:
        raise ConfigError("a driver is detached on a cluster only: -r hadoop", key="runtime.runner")
    if properties().get("hadoop.security.authentication") == "kerberos":
        raise UsageError("--detach cannot be used on a cluster with Kerberos: a driver there could submit no jobs")
    if codes_of(config):
        raise UsageError("a driver on the cluster does not train models of one's own code: leave out --detach")
    if config.run_dir is None or not is_remote_address(config.run_dir):
        raise ConfigError(
            "the directory of a detached run must be on the cluster", hint="--run-dir hdfs:///...", key="run_dir"
        )
    if not storage(config.run_dir).is_read_by_hadoop:
        raise ConfigError(
            "the directory of a detached run must be in HDFS: Hadoop's own programs read the driver's files there",
            hint="--run-dir hdfs:///..., or leave out --detach",
            key="run_dir",
        )
    if start_from is not None and not is_remote_address(start_from):
        raise UsageError("a detached driver cannot read a run on this machine", hint="copy it to HDFS", run=start_from)
    for key, value in (("tensorboard", config.tracking.tensorboard), ("mlflow", config.tracking.mlflow)):
        if isinstance(value, str) and not has_scheme(value):
            raise ConfigError("a detached driver cannot write into a folder of this machine", key=f"tracking.{key}")
    if Path(config.runtime.hadoop.mrjob_conf).is_absolute() and Path(config.runtime.hadoop.mrjob_conf).exists():
        raise ConfigError(
            "a detached driver needs a path relative to the current folder", key="runtime.hadoop.mrjob_conf"
        )
    data = reachable(config.data.path, config.runtime.runner, "a dataset")
    return config.model_copy(
        update={
            "run_dir": storage(config.run_dir).root,
            "data": config.data.model_copy(update={"path": data}),
        }
    )


def _mrjob_conf(config: Config) -> tuple[str, str] | None:
    path = Path(config.runtime.hadoop.mrjob_conf)
    return (str(path), path.read_text("utf-8")) if path.is_file() else None


def driver_memory(config: Config, dataset: Dataset) -> int:
    """Return the megabytes that a driver of this training needs besides its Python: by the size of its models, unless
    ``runtime.hadoop.driver_memory_mb`` says it."""
    if config.runtime.hadoop.driver_memory_mb is not None:
        return config.runtime.hadoop.driver_memory_mb
    outputs = len(dataset.classes) if dataset.task == "classification" else 1
    splits = len(config.split.seeds) * max(config.split.folds, 1)
    model_bytes = 0
    for settings in _combinations(config):
        model = build_model(settings.model, shape=dataset.shape, outputs=outputs, task=dataset.task)
        model_bytes += splits * model.layout.nbytes
    return CLIENT_MB + DRIVER_MB + -(-MODEL_COPIES * model_bytes // (1 << 20))


def _combinations(config: Config) -> Iterator[Config]:
    """The settings of each combination of swept keys."""
    return map(config.with_overrides, combinations(config.sweep))


def _request(config: Config, dataset: Dataset, plan: DriverPlan) -> JobRequest:
    return JobRequest(
        job=DetachedJob,
        phase=PHASE,
        name="the driver",
        experiment=config.name,
        label="driver",
        lines=(plan.to_line(),),
        files={"--config": f"{plan.home}/config.yaml"},
        demand=TaskDemand(memory_mb=driver_memory(config, dataset)),
    )


def _begun(run: str, home: Storage, request: JobRequest, submission: Submission, before: str | None) -> RunState:
    """Wait until the driver has the run, or has ended; return the state of the run then.

    ``before``: the lease of the driver before it. Raises what the driver left as its error, `JobError` where its job
    failed.
    """
    name = str(submission.application)
    place = storage(run, private=True)
    with waiting_for("") as wait:
        while True:
            if (error := read_driver_error(home)) is not None:
                raise error
            driver = driver_of(place)
            if driver is not None and driver.name != before and RunDirectory(run).exists():
                return run_state(run)
            job = application(name, submission.web)
            if job.get("state") in ENDED and (error := read_driver_error(home)) is None:
                if job.get("finalStatus") == "SUCCEEDED":
                    raise JobError("the driver ended and has left no run", hint=f"yarn logs -applicationId {name}")
                raise explain(submission, program("yarn"), os.environ)
            _, wait.what = job_text(request, submission)
            time.sleep(POLL_SECONDS)
