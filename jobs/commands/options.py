"""Options that several commands have, each stated once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from nnlib.config.runners import RUNNERS
from nnlib.core.errors import UsageError

if TYPE_CHECKING:
    from nnlib.config.schema import Config, Runtime

Command = Callable[..., None]

RUNNER = click.Choice(list(RUNNERS))
"""The type of ``-r``: a runner by its name."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, as the last line of standard output."
)

trial_option = click.option(
    "--trial", type=click.IntRange(min=0), default=0, show_default=True, help="Which of the run's models."
)

_trust_flag = click.option(
    "--trust-code", is_flag=True, help="Run the code that a run brings, now and later: read it first, as in RUN/code."
)


def trust_option(command: Command) -> Command:
    """Add ``--trust-code`` to a command that opens runs: with it code is trusted that was not trusted here before."""

    @functools.wraps(command)
    def with_trust(*arguments: Any, trust_code: bool, **others: Any) -> None:
        if not trust_code:
            command(*arguments, **others)
            return
        from nnlib.config.code_trust import trusting_code  # late: --help needs no schema

        with trusting_code():
            command(*arguments, **others)

    return _trust_flag(with_trust)


_python_bin_option = click.option(
    "--python-bin", metavar="COMMAND", help="hadoop: run the nodes' own Python instead of a packed environment."
)


def runner_option(default: str) -> Callable[[Command], Command]:
    """Return the option ``-r``, an argument ``runner``. ``default`` says what happens without it."""
    return click.option(
        "-r",
        "--runner",
        type=RUNNER,
        help="Where tasks run: in this process, in processes of this machine, or on a cluster. "
        + f"[default: {default}]",
    )


def _set_option(example: str) -> Callable[[Command], Command]:
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"Change a key, such as {example}; repeatable."
    )


def configuration_options(command: Command) -> Command:
    """Add ``-r``, ``--set`` and ``--python-bin`` to a command that reads a configuration.

    The command gets one argument for them, ``overrides``: a tuple of ``KEY=VALUE``.
    """

    @functools.wraps(command)
    def with_overrides(
        *arguments: Any, runner: str | None, overrides: tuple[str, ...], python_bin: str | None, **others: Any
    ) -> None:
        command(*arguments, overrides=(*overrides, *_runtime_overrides(runner, python_bin)), **others)

    return runner_option("the configuration's")(_set_option("train.lr=0.1")(_python_bin_option(with_overrides)))


@dataclass(frozen=True)
class JobOptions:
    """What a user said about the job that is to do a command's work: ``-r``, ``--set`` and ``--python-bin``."""

    runner: str | None
    overrides: tuple[str, ...]
    python_bin: str | None

    def runtime(self, read: Callable[[Sequence[str]], Config]) -> Runtime | None:
        """Return the section ``runtime`` for the job, or None if the work is to be done without a job.

        Args:
            read: reads the configuration with these overrides.

        Raises:
            UsageError: an option needs ``-r``, or a key is not one of ``runtime``.
        """
        if self.runner is None:
            if self.overrides or self.python_bin:
                raise UsageError("--set and --python-bin are for a job: choose a runner for it with -r")
            return None
        for override in self.overrides:
            if not override.strip().startswith("runtime."):
                raise UsageError("only keys of runtime can be set here", override=override)
        runtime = read([*self.overrides, *_runtime_overrides(self.runner, self.python_bin)]).runtime
        from jobs.runners.hadoop.kerberos_login import use_keytab

        use_keytab(runtime)
        return runtime


def job_options(command: Command) -> Command:
    """Add ``-r``, ``--set`` and ``--python-bin`` to a command whose work a job can do.

    The command gets one argument for them, ``job``: a `JobOptions`.
    """

    @functools.wraps(command)
    def with_job(
        *arguments: Any, runner: str | None, overrides: tuple[str, ...], python_bin: str | None, **others: Any
    ) -> None:
        command(*arguments, job=JobOptions(runner, overrides, python_bin), **others)

    set_option = _set_option("runtime.retries=3")
    return runner_option("in this process, without a job")(set_option(_python_bin_option(with_job)))


def _runtime_overrides(runner: str | None, python_bin: str | None) -> list[str]:
    overrides = [] if runner is None else [f"runtime.runner={runner}"]
    return overrides if python_bin is None else [*overrides, f"runtime.hadoop.python_bin={python_bin}"]
