"""Draws how runs learned: scores and drift against time, and the lengths of rounds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nnlib.core.metrics import METRICS, is_share
from nnlib.report.collect import RunFacts, Series
from nnlib.report.drawing import (
    DASHES,
    DRAWN_SERIES,
    SERIES,
    Figure,
    draw_legend,
    draw_line,
    new_axes,
    numbered,
    rendered,
    shortened,
    styled,
)


def curve(series: Sequence[Series], score: str) -> Figure:
    """Draw a test score against epochs: a line for the mean, a band from the lowest to the highest trial."""
    drawn = [each for each in series if score in each.curves][:DRAWN_SERIES]
    with styled():
        canvas, axes = new_axes()
        for number, each in numbered(series, drawn):
            values = each.curves[score]
            low, mean, high = (_over_trials(values, how) for how in (np.nanmin, np.nanmean, np.nanmax))
            colour = SERIES[number % len(SERIES)]
            if len(values) > 1:
                axes.fill_between(each.epochs, low, high, color=colour, alpha=0.18, linewidth=0)
            draw_line(axes, each.epochs, mean, number, each.label)
        share = is_share(score)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"test {METRICS[score].title}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        axes.set_ylim(*_settled([each.curves[score] for each in drawn]))
        if share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
        draw_legend(canvas, [each.label for each in drawn])
        sentences = [f"{each.label}: {_course(each, score)}" for each in drawn]
        return rendered(canvas, f"curve-{score}", f"Test {METRICS[score].title} against epochs", ". ".join(sentences))


def drift(series: Sequence[Series]) -> Figure | None:
    """Draw the distance of the workers from their average; None where no run has more than one worker."""
    drawn = [each for each in series if len(each.drift) and each.run.spec.workers > 1][:DRAWN_SERIES]
    if not drawn:
        return None
    with styled():
        canvas, axes = new_axes()
        for number, each in numbered(series, drawn):
            colour = SERIES[number % len(SERIES)]
            axes.fill_between(
                each.drift_rounds, each.drift[:, 0], each.drift[:, 2], color=colour, alpha=0.18, linewidth=0
            )
            draw_line(axes, each.drift_rounds, each.drift[:, 1], number, each.label)
        axes.set_xlabel("round")
        axes.set_ylabel("distance from the average,\nrelative to its norm")
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        draw_legend(canvas, [each.label for each in drawn])
        sentences = [
            f"{each.label}: {each.drift[0, 1]:.3g} in the first round, {each.drift[-1, 1]:.3g} in the last"
            for each in drawn
        ]
        return rendered(canvas, "drift", "Drift of the workers", "Mean over workers. " + ". ".join(sentences))


def round_lengths(runs: Sequence[RunFacts]) -> Figure | None:
    """Draw the epochs of each round, of runs that chose them while they trained; None where none did."""
    drawn = [run for run in runs if run.rounds_planned is None and run.lengths][:DRAWN_SERIES]
    if not drawn:
        return None
    with styled():
        canvas, axes = new_axes()
        for number, run in enumerate(drawn):
            axes.step(
                range(1, len(run.lengths) + 1),
                run.lengths,
                where="mid",
                color=SERIES[number],
                linestyle=DASHES[number % len(DASHES)],
                marker="o" if len(run.lengths) < 3 else "",
                markersize=4,
                label=f" {shortened(run.name)}",
            )
        axes.set_xlabel("round")
        axes.set_ylabel("epochs")
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        draw_legend(canvas, [run.name for run in drawn])
        sentences = [
            f"{run.name}: {len(run.lengths)} rounds, of {min(run.lengths)} to {max(run.lengths)} epochs"
            for run in drawn
        ]
        return rendered(canvas, "lengths", "Epochs in each round", "; ".join(sentences))


def _over_trials(values: npt.NDArray[np.float64], how: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an epoch that no trial was scored at is NaN
        return how(values, axis=0)


def _settled(curves: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Return the range of scores after the first tenth of the epochs: the earlier scores would flatten the rest."""
    late = [values[:, max(1, values.shape[1] // 10) :] if values.shape[1] > 4 else values for values in curves]
    known = np.concatenate([values[np.isfinite(values)] for values in late])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    pad = max(0.06 * (high - low), 0.004)
    return low - pad, min(high + pad, 1.0 + 0.2 * pad) if high <= 1.0 else high + pad


def _course(series: Series, score: str) -> str:
    mean = _over_trials(series.curves[score], np.nanmean)
    known = np.flatnonzero(np.isfinite(mean))
    first, last = known[0], known[-1]
    form = "{:.1%}" if is_share(score) else "{:.4g}"
    return (
        f"{form.format(mean[first])} at epoch {series.epochs[first]}, {form.format(mean[last])} at epoch "
        f"{series.epochs[last]}, the mean of {len(series.trials)} trials"
    )
