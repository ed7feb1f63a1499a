"""The report of one or several runs: one self-contained page, and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlib.core.errors import UsageError
from nnlib.storage import Storage, file_at, storage

PAGE = "report.html"
FIGURES = "figures"


def write_report(runs: Sequence[str], output: str | None = None) -> dict[str, Any]:
    """Write the page ``report.html`` and its figures, each as SVG and PNG, into the folder ``figures``.

    The same runs have the same report, byte for byte.

    Args:
        runs: addresses of run directories.
        output: the address of the page, or a folder for it; None: the run's directory, of several runs the current one.

    Returns:
        The address of the page (``output``), and those of the figures' files (``figures``).

    Raises:
        UsageError: there is no run, or matplotlib or Jinja2 is not installed.
    """
    if not runs:
        raise UsageError("a report needs a run")
    try:
        from nnlib.report.page import make_report  # matplotlib takes half a second, and is optional
    except ModuleNotFoundError as error:
        raise UsageError(f"a report needs the package {error.name}", hint='pip install "nnjobs[report]"') from error
    from nnlib.core.numerics import blas_threads
    from nnlib.report.collect import read_series

    series = read_series(runs)
    folder, name = _page_address(output, series[0].run.directory.address if len(runs) == 1 else ".")
    with blas_threads(series[0].run.spec.config.runtime.blas_threads):
        report = make_report(series)
    files = {f"{FIGURES}/{figure}": data for figure, data in sorted(report.files.items())}
    folder.write_all({**files, name: report.html.encode()})
    return {"output": f"{folder.root}/{name}", "figures": [f"{folder.root}/{each}" for each in files]}


def _page_address(output: str | None, default: str) -> tuple[Storage, str]:
    """Return the storage of the page and its name there."""
    if output is not None and output.endswith((".html", ".htm")):
        return file_at(output)
    return storage(default if output is None else output), PAGE
