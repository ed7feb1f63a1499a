"""The report of one or several runs: one self-contained page, and its figures as files."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from nnlib.core.errors import UsageError
from nnlib.storage import Storage, file_at, is_stream, storage
from nnlib.storage.outputs import refuse_overlap, relation

# Its warnings are about its own cache: without a home folder it says four lines that no reader of a report needs.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

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
        UsageError: there is no run, matplotlib or Jinja2 is not installed, the page would lie in a run (but for the
            folder of the run itself), or it or a figure would replace a file of another program.
    """
    if not runs:
        raise UsageError("a report needs a run")
    try:
        from nnlib.report.page import make_report  # matplotlib takes half a second, and is optional
    except ModuleNotFoundError as error:
        raise UsageError(f"a report needs the package {error.name}", hint='pip install "nnjobs[report]"') from error
    from nnlib.core.numerics import blas_threads
    from nnlib.report.collect import read_series

    folder, name = _page_address(output, runs[0] if len(runs) == 1 else ".")
    if output is not None:
        _refuse_overlap(folder, name, runs)
    series = read_series(runs)
    into_stream = folder.is_stream(name)
    if not into_stream and folder.exists(name) and not _is_report(folder, name) and not _is_page(output):
        raise UsageError(
            f"the folder of the report holds a {name} of another program",
            hint="choose another folder, or name the page, as in -o other.html",
            file=f"{folder.root}/{name}",
        )
    with blas_threads(series[0].run.spec.config.runtime.blas_threads):
        report = make_report(series)
    figures = {} if into_stream else {f"{FIGURES}/{figure}": data for figure, data in sorted(report.files.items())}
    _refuse_foreign_figures(folder, figures)
    folder.write_all({name: report.html.encode(), **figures})
    return {"output": f"{folder.root}/{name}", "figures": [f"{folder.root}/{each}" for each in figures]}


def _page_address(output: str | None, default: str) -> tuple[Storage, str]:
    """Return the storage of the page and its name there."""
    if output is not None and (_is_page(output) or is_stream(output)):
        return file_at(output)
    return storage(default if output is None else output), PAGE


def _is_page(output: str | None) -> bool:
    """Return whether an address is that of the page, not of a folder for it."""
    return output is not None and output.endswith((".html", ".htm"))


def _refuse_overlap(folder: Storage, name: str, runs: Sequence[str]) -> None:
    """Refuse a page in a run. The folder of the run itself is where its report lies, beside the run's own files."""
    for run in runs:
        if relation(folder.uri, run) != "is":
            refuse_overlap(f"{folder.uri}/{name}", (run,))


def _is_report(folder: Storage, name: str) -> bool:
    """Return whether a file is the page of a report."""
    with folder.open(name) as stream:
        return b"nnjobs report</title>" in stream.read(4096)


def _refuse_foreign_figures(folder: Storage, figures: Collection[str]) -> None:
    """Refuse to replace figures where no page of ours is: they may be of another program."""
    found = next((figure for figure in figures if folder.exists(figure)), None)
    if found is None:
        return
    pages = [name for name in folder.names() if _is_page(name)]
    if not any(_is_report(folder, name) for name in pages):
        raise UsageError(
            "the report would replace this file, which may be another program's: no report of ours is beside it",
            hint="choose another folder with -o",
            file=f"{folder.root}/{found}",
        )
