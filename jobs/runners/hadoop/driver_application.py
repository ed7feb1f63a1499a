"""The application of a detached driver, as those ask about it who watch or end its run."""

from __future__ import annotations

import os

from jobs.runners.hadoop.kill import kill_application
from jobs.runners.hadoop.yarn_rest import ENDED, application, program
from nnlib.core.errors import JobError
from nnlib.run.detached_driver import read_detached_driver
from nnlib.storage import Storage


def living_driver(run: Storage) -> str | None:
    """Return the application that drives the run in the directory ``run``, unless it has ended: where its driver is
    dead, YARN starts another. None also for a run that has no detached driver, and where YARN does not answer."""
    driver = read_detached_driver(run)
    if driver is None:
        return None
    state = application(driver.application, None).get("state")
    return None if state is None or state in ENDED else driver.application


def end_driver(name: str) -> None:
    """End the application of a detached driver. Raises `JobError` where the cluster does not do so."""
    if not kill_application(name, None, program("yarn"), os.environ):
        raise JobError(f"cannot end {name}", hint=f"yarn application -kill {name}")
