"""Trackers: a run as experiment trackers show it, from its events and committed rounds.

The driver alone writes to them. A new tracker is one module with a class that follows `Tracker`
(`nnlib.tracking.protocol`), a key of the section ``tracking``, and one line in `TRACKERS`. No tracker can end a run or
hold it up: each has a thread, and one that fails is left alone after a warning.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.core.events import Event, Listener, RunDone
from nnlib.tracking.follower import Follower
from nnlib.tracking.mlflow_runs import MlflowRun
from nnlib.tracking.protocol import Status, Tracker
from nnlib.tracking.tensorboard import EventFiles


@dataclass(frozen=True)
class TrackerKind:
    """A kind of tracker: the package it needs, and how it is made from a configuration that asks for it."""

    package: str
    make: Callable[[Config], Tracker]


TRACKERS = {
    "tensorboard": TrackerKind("tensorboardX", EventFiles.configured),
    "mlflow": TrackerKind("mlflow", MlflowRun.configured),
}
"""By the key of ``tracking``, which is also the extra that installs the package."""


@contextlib.contextmanager
def tracked(config: Config, listen: Listener) -> Iterator[Listener]:
    """The listener of a run whose events go to ``listen`` and to the trackers that the configuration asks for.

    Raises `ConfigError`, before anything is trained, if a tracker's package is not installed.
    """
    followers = _followers(config, listen)
    status: Status = "failed"

    def notify(event: Event) -> None:
        nonlocal status
        if isinstance(event, RunDone):
            status = "finished"
        for follower in followers:
            follower(event)
        listen(event)

    try:
        yield notify if followers else listen
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        for follower in followers:
            follower.close(status)


def _followers(config: Config, listen: Listener) -> list[Follower]:
    followers = []
    for key, kind in TRACKERS.items():
        if not getattr(config.tracking, key):
            continue
        if importlib.util.find_spec(kind.package) is None:  # it is imported by the follower's thread: it takes 1 s
            raise ConfigError(
                f"tracking.{key} needs the package {kind.package}",
                hint=f'pip install "nnjobs[{key}]", or set tracking.{key} to false',
            )
        followers.append(Follower(key, kind.make(config), listen))
    return followers
