"""``nnjobs pack``."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "-o",
    "--output",
    default="nnjobs-env.tar.gz",
    show_default=True,
    metavar="URI",
    help="The archive to write.",
)
@click.option("--with-torch", is_flag=True, help="Put torch into it, too (gigabytes).")
@click.option("--no-python", is_flag=True, help="Leave Python out: for nodes that have this version.")
def pack(output: str, with_torch: bool, no_python: bool) -> None:
    """Pack the environment of tasks on a cluster: nnjobs, numpy ..., and Python itself.

    `nnjobs train -r hadoop` does this by itself. Pack by hand to take the environment of another machine, one like the
    nodes, and name the archive, here or in HDFS, as runtime.hadoop.archive.
    """
    from jobs.runners.hadoop.pack import pack as write
    from nnlib.storage import is_stream

    packed = write(output, distributions=("torch",) if with_torch else (), python=not no_python)
    click.echo(f"{output}: {packed.bytes / 2**20:.0f} MB, sha256 {packed.sha256}", err=is_stream(output))
    click.echo(f"  to use it: nnjobs train CONFIG -r hadoop --set runtime.hadoop.archive={output}", err=True)
