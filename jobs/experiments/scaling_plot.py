"""The figure of a scaling study. Imports matplotlib, which is optional."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from jobs.experiments.scaling_study import ScalingStudy

OURS, THEIRS, IDEAL = "#0072b2", "#d55e00", "#767676"  # apart for colour-blind readers too; markers differ besides


def draw_study(study: ScalingStudy) -> bytes:
    """Draw speed-up (with the ideal line) and PI % against workers, the published study dashed. As PNG."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    points = [point for point in study.points if point.seconds > 0]
    counts = [point.workers for point in points]
    left.plot(counts, counts, color=IDEAL, linestyle=":", label="ideal")
    left.plot(counts, [point.speedup for point in points], color=OURS, marker="o", label=study.name)
    right.axhline(0.0, color=IDEAL, linewidth=0.8)
    right.plot(counts, [point.improvement for point in points], color=OURS, marker="o", label=study.name)
    if study.published is not None:
        theirs = study.published.points
        published = [point.workers for point in theirs]
        ratios = [theirs[0].seconds / point.seconds for point in theirs]
        left.plot(published, ratios, color=THEIRS, marker="s", linestyle="--", label="published")
        gains = [point.improvement or 0.0 for point in theirs]
        right.plot(published, gains, color=THEIRS, marker="s", linestyle="--", label="published")
    for axes, label in ((left, "speed-up T1 / Tx"), (right, "PI %")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("workers")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log", base=2)
    left.yaxis.set_major_formatter(ScalarFormatter())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
