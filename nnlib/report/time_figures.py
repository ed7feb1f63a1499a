"""Draws the time and the bytes of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nnlib.report import formatting
from nnlib.report.collect import PHASES, RunFacts, Series
from nnlib.report.drawing import (
    DASHES,
    DRAWN_SERIES,
    PAPER,
    SERIES,
    Figure,
    draw_legend,
    new_axes,
    numbered,
    rendered,
    shortened,
    styled,
)

UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))
FAR_APART = 20
"""Largest by smallest amount, from which on their axis is logarithmic."""


def phases(runs: Sequence[RunFacts]) -> Figure | None:
    """Draw the seconds by phase, a bar a run; None where no run recorded times."""
    drawn = [run for run in runs if run.times is not None]
    if not drawn:
        return None
    with styled():
        canvas, axes = new_axes(height=1.35 + 0.32 * len(drawn))
        left = np.zeros(len(drawn))
        for number, phase in enumerate(PHASES):
            spent = np.array([run.times.phases[phase] for run in drawn if run.times is not None])
            bars = axes.barh(
                range(len(drawn)),
                spent,
                left=left,
                color=SERIES[(number + 7) % 8],
                height=0.62,
                label=phase,
                edgecolor=PAPER,
                linewidth=0.8,
            )
            bars.set_label(phase)
            left += spent
        axes.set_yticks(range(len(drawn)), [shortened(run.name) for run in drawn])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel("seconds")
        canvas.legend(
            loc="outside upper left", ncols=6, fontsize=8, handlelength=0.8, columnspacing=0.8, handletextpad=0.4
        )
        sentences = [
            f"{run.name}: " + ", ".join(f"{phase} {run.times.phases[phase]:.2f}" for phase in PHASES)
            for run in drawn
            if run.times is not None
        ]
        return rendered(canvas, "phases", "Seconds by phase", "; ".join(sentences))


def shuffled(runs: Sequence[RunFacts]) -> Figure | None:
    """Draw the bytes that each round carried from mappers to reducers."""
    amounts = {run.name: (run.times.rounds, run.times.bytes) for run in runs if run.times is not None}
    return _bytes_by_round(amounts, "shuffled", "Bytes shuffled a round")


def uploaded(runs: Sequence[RunFacts]) -> Figure | None:
    """Draw the bytes that each round sent to storage on other machines; None where there are none."""
    amounts = {
        run.name: (run.times.rounds, run.times.uploaded)
        for run in runs
        if run.times is not None and any(run.times.uploaded)
    }
    return _bytes_by_round(amounts, "uploaded", "Bytes uploaded a round")


def _bytes_by_round(amounts: Mapping[str, tuple[Sequence[int], Sequence[int]]], name: str, title: str) -> Figure | None:
    """Draw bytes by round; ``amounts`` maps a run to its rounds and the bytes of each."""
    drawn = [(run, *series) for run, series in amounts.items() if series[0]][:DRAWN_SERIES]
    if not drawn:
        return None
    with styled():
        canvas, axes = new_axes()
        most = max(max(sizes) for _, _, sizes in drawn)
        unit, size = next((each for each in UNITS if most >= each[1]), UNITS[-1])
        for number, (run, rounds, sizes) in enumerate(drawn):
            axes.step(
                rounds,
                np.array(sizes) / size,
                where="mid",
                color=SERIES[number],
                linestyle=DASHES[number % 4],
                marker="o" if len(sizes) < 3 else "",
                markersize=4,
                label=f" {shortened(run)}",
            )
        axes.set_xlabel("round")
        axes.set_ylabel(f"{unit} a round")
        axes.set_ylim(bottom=0.0, top=1.15 * most / size or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        draw_legend(canvas, [run for run, _, _ in drawn])
        sentences = [
            f"{run}: {sizes[0] / size:.3g} {unit} in the first round, {sum(sizes) / size:.3g} {unit} in all"
            for run, _, sizes in drawn
        ]
        return rendered(canvas, name, title, "; ".join(sentences))


def score_by_bytes(series: Sequence[Series]) -> Figure | None:
    """Draw the compared score against the bytes sent for a model: mean, lowest and highest trial.

    None where fewer than two series recorded their bytes.
    """
    drawn = [each for each in series if each.sent is not None and each.summary(each.score).n][:DRAWN_SERIES]
    if len(drawn) < 2:
        return None
    score = drawn[0].score
    with styled():
        canvas, axes = new_axes()
        amounts = [each.sent for each in drawn if each.sent]
        unit, size = next((each for each in UNITS if max(amounts, default=0.0) >= each[1]), UNITS[-1])
        sentences = []
        for number, each in numbered(series, drawn):
            summary, sent = each.summary(score), each.sent or 0.0
            assert summary.mean is not None
            assert summary.low is not None
            assert summary.high is not None
            axes.errorbar(
                sent / size,
                summary.mean,
                [[summary.mean - summary.low], [summary.high - summary.mean]],
                color=SERIES[number % len(SERIES)],
                marker="osD^v<>P"[number % 8],
                markersize=8.5 - 0.6 * number,  # one that lies upon another leaves its edge to be seen
                linestyle="none",
                elinewidth=1.0,
                capsize=2,
                label=f" {shortened(each.label)}",
            )
            sentences.append(
                f"{each.label}: {formatting.format_score(summary.mean, score)} with {formatting.format_size(sent)}"
            )
        if amounts and max(amounts) > FAR_APART * min(amounts):
            axes.set_xscale("symlog", linthresh=min(amounts) / size)
        axes.set_xlabel(f"{unit} sent for a model")
        axes.set_ylabel(f"test {score.replace('r2', 'R²')}")
        if score == "accuracy":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
        axes.margins(x=0.1)
        draw_legend(canvas, [each.label for each in drawn])
        return rendered(canvas, "score-by-bytes", f"Test {score} against bytes sent", "; ".join(sentences))
