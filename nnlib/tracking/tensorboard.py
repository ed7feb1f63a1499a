"""TensorBoard's event files, through tensorboardX."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.run.directory import RunDirectory
from nnlib.storage import has_scheme
from nnlib.tracking.protocol import Point, Status, Tracker

FOLDER = "tensorboard"


class EventFiles(Tracker):
    """Event files in the run directory, or in a folder with one for each run.

    They are a view of the run: opened anew, they are made anew from its first round on, which is why a resumed run has
    no step twice.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._writer: Any = None
        self._files = ("", "")

    @classmethod
    def configured(cls, config: Config) -> EventFiles:
        """Raises `ConfigError` for a folder that is not local: event files are appended to."""
        wanted = config.tracking.tensorboard
        folder = wanted if isinstance(wanted, str) else None
        if has_scheme(folder or config.run_dir or ""):
            raise ConfigError(
                "event files need a local folder",
                hint="set tracking.tensorboard to one",
                key="tracking.tensorboard",
            )
        return cls(folder)

    def begin(self, run: RunDirectory) -> Mapping[str, int]:
        directory = Path(run.address)
        # The last two parts of its address name a run: runs/digits-1, evaluations/paper-shared-2.
        folder = directory / FOLDER if self._folder is None else Path(self._folder, *directory.parts[-2:])
        suffix = f".nnjobs-{hashlib.sha256(run.address.encode()).hexdigest()[:8]}"
        for old in folder.glob(f"events.out.tfevents.*{suffix}"):
            old.unlink()
        self._files = str(folder), suffix
        return {}

    def write(self, point: Point) -> None:
        if self._writer is None:  # a run that ends before its first round leaves nothing behind
            from tensorboardX import SummaryWriter  # an extra, and slow to import

            folder, suffix = self._files
            self._writer = SummaryWriter(folder, filename_suffix=suffix)
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.epoch, walltime=point.time)
        self._writer.flush()  # a viewer sees every round

    def end(self, status: Status) -> None:
        if self._writer is not None:
            self._writer.close()
