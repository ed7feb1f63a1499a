"""MLflow runs, on the tracking server or in the store that an address names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nnlib.config.identity import mathematics_read
from nnlib.config.schema import Config
from nnlib.run.directory import RunDirectory
from nnlib.storage import is_remote_address
from nnlib.tracking.protocol import Point, Status, Tracker

STATES: dict[Status, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
LONGEST_VALUE = 500
"""Characters of a parameter that every store takes."""
RUN_TAG = "nnjobs.run"


class MlflowRun(Tracker):
    """One MLflow run for each run directory: a resumed run goes on in the same."""

    def __init__(self, address: str | None, experiment: str) -> None:
        """``address`` None leaves it to MLflow's settings (MLFLOW_TRACKING_URI), as credentials are."""
        self._address, self._experiment = address, experiment
        self._client: Any = None
        self._id = ""

    @classmethod
    def configured(cls, config: Config) -> MlflowRun:
        """Make the tracker that ``tracking.mlflow`` and ``tracking.experiment`` describe."""
        wanted = config.tracking.mlflow
        return cls(wanted if isinstance(wanted, str) else None, config.tracking.experiment)

    def begin(self, run: RunDirectory) -> Mapping[str, int]:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would report to its makers
        if self._address is not None and not is_remote_address(self._address):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # who names a folder wants one
        from mlflow.tracking import MlflowClient  # an extra, and slow to import

        self._client = client = MlflowClient(self._address)
        known = client.get_experiment_by_name(self._experiment)
        experiment = client.create_experiment(self._experiment) if known is None else known.experiment_id
        # The hash distinguishes it from another run that had the same address before.
        spec = run.spec()
        tag = f"{run.address}#{spec.config_hash[:16]}"
        runs = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{tag}'", max_results=1)
        if runs:
            self._id = runs[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            return {name: self._newest(name) for name in runs[0].data.metrics}
        tags = {RUN_TAG: tag, "nnjobs.dataset": spec.dataset.fingerprint}
        name = run.address.rstrip("/").rpartition("/")[2]
        self._id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        for key, value in mathematics_read(spec.config).items():
            client.log_param(self._id, key, str(value)[:LONGEST_VALUE])
        return {}

    def write(self, point: Point) -> None:
        from mlflow.entities import Metric

        moment = int(1000 * point.time)
        metrics = [Metric(name, value, moment, point.epoch) for name, value in point.values.items()]
        self._client.log_batch(self._id, metrics)

    def end(self, status: Status) -> None:
        self._client.set_terminated(self._id, STATES[status])

    def _newest(self, name: str) -> int:
        return max(int(metric.step) for metric in self._client.get_metric_history(self._id, name))
