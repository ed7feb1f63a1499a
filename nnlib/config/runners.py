"""The runners by name: where the class of a runner's sessions is, and what a runner can do.

A new runner is one file and one line of `RUNNERS`: commands, configuration and jobs ask this table, none has a copy.
"""

from __future__ import annotations

from typing import NamedTuple

from nnlib.core.errors import ConfigError


class Runner(NamedTuple):
    """One way of running jobs.

    ``session`` is ``module:class`` of its `jobs.runners.session.Session`, imported when the runner is used.
    ``in_one_process``: all tasks run in the driver's process, one after the other, and a collective job is one task.
    ``is_remote``: tasks run on other machines, which see no path of this one. ``takes_chaos``: tasks are processes
    that ``--chaos`` can harm. ``logs`` is ``module:function`` of what finds the log of a worker
    (`jobs.runners.worker_logs.FindLog`).
    """

    session: str
    logs: str = "jobs.runners.worker_logs:refuse_log_of_driver"
    in_one_process: bool = False
    is_remote: bool = False
    takes_chaos: bool = False


RUNNERS: dict[str, Runner] = {
    "inline": Runner("jobs.runners.inline:InlineSession", in_one_process=True),
    "local": Runner(
        "jobs.runners.local.session:LocalSession", "jobs.runners.local.worker_logs:find_log", takes_chaos=True
    ),
    "hadoop": Runner(
        "jobs.runners.hadoop.session:HadoopSession", "jobs.runners.hadoop.worker_logs:find_log", is_remote=True
    ),
}


def runner_named(name: str) -> Runner:
    """Return the runner of this name. Raises `ConfigError` if there is none."""
    if name not in RUNNERS:
        raise ConfigError(f"there is no runner {name}; there are {', '.join(RUNNERS)}", key="runtime.runner")
    return RUNNERS[name]
