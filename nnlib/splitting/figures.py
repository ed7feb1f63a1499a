"""Figures of a splitting study: the score against the combination, and against what a partition is like.

The first is the figure 3 of "structural splitting". matplotlib is imported when they are drawn.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import Any

from nnlib.splitting.properties import PROPERTIES
from nnlib.splitting.scores import PartitionScore, mean_of, whole_scores

_COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490", "#be185d", "#6b7280")
_MOST_NETS = 8
"""Nets that the figures tell apart by colour; more are left out of them, not of the table."""


def study_figures(scores: Sequence[PartitionScore], chance: float | None, metric: str) -> dict[str, bytes]:
    """Draw the figures of a study, as SVG by file name. ``chance``: see `nnlib.splitting.study.SplitStudy`."""
    return {
        "score-by-combination.svg": _by_combination(scores, chance, metric),
        "score-by-property.svg": _by_property(scores, metric),
    }


def _by_combination(scores: Sequence[PartitionScore], chance: float | None, metric: str) -> bytes:
    figure = _figure(8.0, 4.2)
    axes = figure.add_subplot()
    for colour, (net, whole) in zip(_COLOURS, list(whole_scores(scores).items())[:_MOST_NETS], strict=False):
        points = [each for each in scores if each.net == net and each.partition is not None]
        axes.scatter([each.number for each in points], _values(points, metric), s=7, color=colour, alpha=0.7)
        if whole.score is not None:
            axes.axhline(_shown(whole.score, metric), color=colour, linewidth=0.8, alpha=0.7)
    before, after = (
        mean_of([getattr(each, name) for each in whole_scores(scores).values()]) for name in ("before", "score")
    )
    if before is not None:
        axes.axhline(_shown(before, metric), color="black", linestyle=":", label="whole net before it was cut (mean)")
    if after is not None:
        axes.axhline(_shown(after, metric), color="black", linestyle="--", label="whole net trained as long (mean)")
        if chance is not None:
            low, high = (_shown(after + sign * 2 * chance, metric) for sign in (-1, 1))
            axes.axhspan(low, high, color="black", alpha=0.07, linewidth=0, label="± 2 standard deviations by chance")
    _finish(axes, "combination", metric)
    figure.legend(loc="outside upper left", ncols=3, fontsize=7.5, frameon=False)
    return _svg(figure)


def _by_property(scores: Sequence[PartitionScore], metric: str) -> bytes:
    figure = _figure(3.2 * len(PROPERTIES), 3.2)
    every = figure.subplots(1, len(PROPERTIES), sharey=True)
    for axes, name in zip(every, PROPERTIES, strict=True):
        for colour, net in zip(_COLOURS, list(whole_scores(scores))[:_MOST_NETS], strict=False):
            points = [each for each in scores if each.net == net and each.partition is not None]
            values = [each.properties[name] for each in points]
            axes.scatter(values, _values(points, metric), s=7, color=colour, alpha=0.6)
        _finish(axes, name.replace("_", " "), metric if name == next(iter(PROPERTIES)) else "")
    return _svg(figure)


def _values(points: Sequence[PartitionScore], metric: str) -> list[float]:
    return [float("nan") if each.score is None else _shown(each.score, metric) for each in points]


def _shown(score: float, metric: str) -> float:
    return 100.0 * score if metric == "accuracy" else score


def _figure(width: float, height: float) -> Any:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # as in `nnlib.report`
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _finish(axes: Any, x: str, metric: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel({"accuracy": "test accuracy (%)", "r2": "test R2"}.get(metric, metric))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(figure: Any) -> bytes:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "nnjobs", "svg.fonttype": "none"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()
