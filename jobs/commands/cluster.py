"""``nnjobs cluster start|status|stop``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobs.commands.options import json_option
from jobs.console.output import print_json, printable
from jobs.console.tables import show_table
from jobs.minicluster.cluster import MEMORY_MB, VCORES, Cluster, default_folder
from jobs.minicluster.daemons import DAEMONS
from jobs.minicluster.status import cluster_usage, daemon_states
from nnlib.core.errors import JobError


@click.group()
def cluster() -> None:
    """Run a single-node Hadoop here, to try jobs on: HDFS, YARN and the job history server.

    It needs Java 11 or 17 and, the first time, Maven; no root, no ssh.
    """


class _Folder(click.Path):
    """A folder's path. An empty one, as a variable of a shell that is not set leaves it, is refused."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the path of a text."""
        if not str(value).strip():
            self.fail("it is empty: name a folder (. is the current one)", parameter, context)
        return super().convert(value, parameter, context)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--dir",
        "folder",
        type=_Folder(file_okay=False, path_type=Path),
        help="The cluster's folder. [default: $NNJOBS_CLUSTER, else cluster in the cache folder]",
    )(json_option(command))


@cluster.command()
@_shared
@click.option(
    "--memory", type=click.IntRange(1), metavar="MB", help=f"Memory for containers. [default: as before, {MEMORY_MB}]"
)
@click.option(
    "--vcores", type=click.IntRange(1), metavar="N", help=f"Vcores for containers. [default: as before, {VCORES}]"
)
def start(folder: Path | None, as_json: bool, memory: int | None, vcores: int | None) -> None:
    """Start the cluster and wait until it is ready. One that was stopped goes on with its data."""
    chosen = Cluster(folder or default_folder(), _announce)
    started = chosen.start(memory, vcores)
    settings = chosen.settings
    if as_json:
        print_json(
            {
                "started": started,
                "folder": str(chosen.folder),
                "addresses": settings.addresses(),
                "environment": settings.environment(),
            }
        )
        return
    click.echo(f"Hadoop {'is ready' if started else 'runs already'} in {printable(str(chosen.folder))}")
    for name, address in settings.addresses().items():
        click.echo(f"  {name:16} {address}")
    click.echo("to use it, in your shell:")
    for name in ("HADOOP_HOME", "HADOOP_CONF_DIR"):
        click.echo(f"  export {name}={shlex.quote(settings.environment()[name])}")
    click.echo("for example:")
    data = f"{settings.filesystem}/datasets/digits"
    click.echo(f"  nnjobs data import digits -o {data} --shards 8")
    click.echo(f"  nnjobs train configs/digits.yaml -r hadoop --set data.path={data}")
    click.echo(f"to end it: nnjobs cluster stop{_dir_option(folder)}")


@cluster.command()
@_shared
def status(folder: Path | None, as_json: bool) -> None:
    """Show the daemons, the space and the applications. Exit code 4 unless all daemons are up."""
    chosen = Cluster(folder or default_folder())
    settings = chosen.settings
    daemons, used = daemon_states(settings), cluster_usage(settings)
    ready = all(state.up for state in daemons)
    if as_json:
        print_json(
            {
                "ready": ready,
                "folder": str(chosen.folder),
                "daemons": [asdict(state) for state in daemons],
                **used,
                "addresses": settings.addresses(),
                "environment": settings.environment(),
            }
        )
    else:
        rows = [
            [DAEMONS[state.name].title, str(state.pid or "-"), str(state.port), "up" if state.up else state.note]
            for state in daemons
        ]
        show_table(f"Hadoop in {chosen.folder}", ["daemon", "pid", "port", "state"], rows, sys.stdout)
        for line in _usage_lines(used):
            click.echo(line)
    if not ready:
        raise click.exceptions.Exit(JobError.exit_code)


@cluster.command()
@_shared
@click.option("--delete", is_flag=True, help="Remove the cluster's data, too.")
def stop(folder: Path | None, as_json: bool, delete: bool) -> None:
    """Stop the cluster, and whatever is left of one whose start was killed."""
    chosen = Cluster(folder or default_folder(), _announce)
    deleted = delete and chosen.exists
    stopped = chosen.stop(delete=delete)
    if as_json:
        print_json({"stopped": stopped, "folder": str(chosen.folder), "deleted": deleted})
        return
    click.echo("stopped" if stopped else f"no cluster runs in {printable(str(chosen.folder))}")
    if deleted:
        click.echo("its data is removed")
    elif stopped:
        click.echo(f"its data is kept; to remove it: nnjobs cluster stop --delete{_dir_option(folder)}")


def _usage_lines(usage: dict[str, int | None]) -> list[str]:
    lines = []
    if usage["hdfs_used"] is not None and usage["hdfs_free"] is not None:
        lines.append(f"HDFS: {usage['hdfs_used'] / 1e6:.1f} MB used, {usage['hdfs_free'] / 1e9:.1f} GB free")
    if usage["live_nodes"] is not None:
        lines.append(f"YARN: live nodes {usage['live_nodes']}, running applications {usage['running_apps']}")
    return lines


def _announce(text: str) -> None:
    click.echo(printable(text), err=True)


def _dir_option(folder: Path | None) -> str:
    return f" --dir {shlex.quote(str(folder))}" if folder else ""
