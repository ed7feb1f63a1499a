"""Opens the session of a runner by the runner's name (`nnlib.config.runners.RUNNERS`)."""

from __future__ import annotations

import importlib

from jobs.runners.session import Session, SessionOptions
from nnlib.config.runners import runner_named


def open_session(options: SessionOptions) -> Session:
    """Open a session of the configured runner; only that runner's modules are imported."""
    module, _, name = runner_named(options.runtime.runner).session.partition(":")
    session: Session = getattr(importlib.import_module(module), name)(options)
    return session
