"""Opens the session of a runner by the runner's name (`nnlib.config.runners.RUNNERS`)."""

from __future__ import annotations

from jobs.runners.session import Session, SessionOptions
from nnlib.config.runners import runner_named
from nnlib.core.named_object import load_named


def open_session(options: SessionOptions) -> Session:
    """Open a session of the configured runner; only that runner's modules are imported."""
    session: Session = load_named(runner_named(options.runtime.runner).session)(options)
    return session
