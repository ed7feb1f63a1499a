"""Figures of an evaluation: accuracy against epochs, time against epochs, time against workers.

They are the paper's Figures 3 to 5 where its numbers are drawn with ours. matplotlib is imported when they are drawn.
"""

from __future__ import annotations

import io
import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nnlib.evaluation.paper_results import PAPER, PAPER_TITLE
from nnlib.evaluation.scores_table import Score, Variant

_COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490", "#be185d")
_PAPER = {"color": "#6b7280", "linestyle": "--", "linewidth": 1.2, "marker": "o", "markersize": 4}
_MARKS = ("o", "s", "^", "D")


def accuracy_figure(scores: Sequence[Score], *, published: bool) -> bytes:
    """Mean test accuracy (or R2) against epochs, a line a run with its standard deviation over the trials; runs of the
    same values share a line. As SVG."""
    figure, axes = _axes("epochs", "test accuracy (%)" if scores[0].main == "accuracy" else "test R2")
    lines: dict[tuple[tuple[int, tuple[float, ...]], ...], list[str]] = {}
    for variant in _variants(scores):
        points = (
            (epoch, tuple(_value(score) for score in scores if _is(score, variant, epoch)))
            for epoch in sorted({score.epoch for score in scores})
        )
        lines.setdefault(tuple((epoch, values) for epoch, values in points if values), []).append(variant.name)
    for colour, (line, labels) in zip(_COLOURS, lines.items(), strict=False):
        epochs = [epoch for epoch, _ in line]
        means = [statistics.fmean(values) for _, values in line]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in line]
        axes.plot(epochs, means, color=colour, marker="o", markersize=4, label="\n".join(labels))
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)
    if published:
        rows = [row.epochs for row in PAPER]
        axes.plot(rows, [row.sequential for row in PAPER], label="paper: sequential", **_PAPER)
        axes.plot(rows, [row.parallel for row in PAPER], label="paper: parallel", **{**_PAPER, "linestyle": ":"})
    return _svg(figure, published)


def time_figure(seconds: Mapping[int, Mapping[int, float]], *, published: bool) -> bytes:
    """Seconds against epochs, a line a number of workers (``seconds[workers][epochs]``); as SVG."""
    figure, axes = _axes("epochs", "seconds")
    for colour, (workers, line) in zip(_COLOURS, sorted(seconds.items()), strict=False):
        axes.plot(list(line), list(line.values()), color=colour, marker="o", markersize=4, label=_workers(workers))
    if published:
        for mark, workers in zip(_MARKS, PAPER[0].seconds, strict=False):
            times = [row.seconds[workers] for row in PAPER]
            style = {**_PAPER, "marker": mark}
            axes.plot([row.epochs for row in PAPER], times, label=f"paper: {_workers(workers)}", **style)
        axes.set_yscale("log")
    return _svg(figure, published)


def workers_figure(seconds: Mapping[int, Mapping[int, float]], *, published: bool) -> bytes:
    """Seconds against the number of workers, a line a number of epochs; as SVG."""
    figure, axes = _axes("workers", "seconds")
    epochs = sorted({epoch for line in seconds.values() for epoch in line})
    for colour, epoch in zip(_COLOURS, epochs, strict=False):
        points = [(workers, line[epoch]) for workers, line in sorted(seconds.items()) if epoch in line]
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=f"{epoch} epochs")
    if published:
        for mark, row in zip(_MARKS, PAPER, strict=False):
            style = {**_PAPER, "marker": mark}
            axes.plot(list(row.seconds), list(row.seconds.values()), label=f"paper: {row.epochs} epochs", **style)
        axes.set_yscale("log")
    axes.set_xticks(sorted(seconds))
    return _svg(figure, published)


def _workers(workers: int) -> str:
    return "sequential" if workers == 1 else f"{workers} workers"


def _variants(scores: Iterable[Score]) -> list[Variant]:
    return list(dict.fromkeys(Variant(score.workers, score.streams) for score in scores))


def _is(score: Score, variant: Variant, epoch: int) -> bool:
    return (score.workers, score.streams, score.epoch) == (variant.workers, variant.streams, epoch)


def _value(score: Score) -> float:
    value = score.metrics.get(score.main)
    if value is not None and score.main == "accuracy":
        value *= 100.0
    return float("nan") if value is None else value


def _axes(x: str, y: str) -> tuple[Any, Any]:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # as in `nnlib.report`
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, published: bool) -> bytes:
    import matplotlib

    whose = f"grey: “{PAPER_TITLE}”" if published else None
    style: dict[str, Any] = {"fontsize": 7.5, "title_fontsize": 7.5, "frameon": False}
    figure.legend(loc="outside upper left", ncols=4, alignment="left", title=whose, **style)
    with matplotlib.rc_context({"svg.hashsalt": "nnjobs", "svg.fonttype": "none"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
