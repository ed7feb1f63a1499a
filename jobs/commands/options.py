"""Options of commands other than `train` whose work a runner can do: which one, and keys of the section runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import click

from nnlib.config.schema import Runtime
from nnlib.core.errors import UsageError

if TYPE_CHECKING:
    from nnlib.config.schema import Config

RUNNERS = get_args(Runtime.model_fields["runner"].annotation)


def runner_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``runner``, ``overrides`` and ``python_bin`` to a command."""
    for option in (
        click.option(
            "--python-bin", metavar="COMMAND", help="hadoop: the nodes' own Python, instead of a packed environment."
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of runtime; may be repeated."
        ),
        click.option(
            "-r", "--runner", type=click.Choice(RUNNERS), help="Do it by a job: here, in processes, or on a cluster."
        ),
    ):
        command = option(command)
    return command


def runtime_of(
    read: Callable[[Sequence[str]], Config], runner: str | None, overrides: Sequence[str], python_bin: str | None
) -> Runtime | None:
    """The runtime section as ``read`` gives it for overrides; None where no runner was asked for."""
    if runner is None:
        given = overrides or python_bin
        if given:
            raise UsageError("--set and --python-bin are for a runner's job: say which with -r")
        return None
    for override in overrides:
        if not override.strip().startswith("runtime."):
            raise UsageError("only keys of runtime can be set here", override=override)
    more = [f"runtime.runner={runner}"]
    if python_bin is not None:
        more.append(f"runtime.hadoop.python_bin={python_bin}")
    return read([*overrides, *more]).runtime


def job_arguments(chosen: dict[str, Any]) -> tuple[str | None, tuple[str, ...], str | None]:
    """Take what `runner_options` added out of a command's arguments."""
    return chosen.pop("runner"), chosen.pop("overrides"), chosen.pop("python_bin")
