"""Draws the errors of a model: by class, by confidence, by value; and pictures of rows."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from nnlib.evaluation.statistics import Bin
from nnlib.report.drawing import INK, MUTED, PAPER, SERIES, WIDTH, Figure, new_axes, rendered, shortened, styled

NUMBERED_CLASSES = 16
"""Up to this many classes the confusion matrix has its counts written into it."""
DRAWN_CLASSES = 40
"""Up to this many classes its cells are drawn one by one, in the page's colours."""


def confusion(matrix: npt.ArrayLike, classes: Sequence[str], name: str) -> Figure:
    """Draw the confusion matrix: true classes down, predicted ones across. Errors have a colour scale of their own.

    Args:
        matrix: counts of rows, shape (classes, classes), integers.
        classes: the names of the classes.
        name: the name of the figure's files.
    """
    counts = np.asarray(matrix, np.int64)
    size = len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(size, dtype=bool), 0.0, share)
    strength = errors / max(float(errors.max()), 1e-30)
    with styled():
        canvas, axes = new_axes(height=WIDTH * 0.92)
        axes.grid(False)
        if size <= DRAWN_CLASSES:
            for row, column in np.ndindex(size, size):
                if counts[row, column]:
                    hit = row == column
                    axes.add_patch(
                        Rectangle(
                            (column - 0.5, row - 0.5),
                            1,
                            1,
                            linewidth=0,
                            facecolor=SERIES[0] if hit else SERIES[1],
                            alpha=0.12 + 0.25 * share[row, column] if hit else 0.08 + 0.72 * strength[row, column],
                        )
                    )
                    if size <= NUMBERED_CLASSES:
                        dark = not hit and strength[row, column] > 0.7
                        axes.text(
                            column,
                            row,
                            str(counts[row, column]),
                            ha="center",
                            va="center",
                            fontsize=_fit(size),
                            color=PAPER if dark else INK,
                        )
        else:
            shown = np.where(np.eye(size, dtype=bool), 0.35 * share, strength)
            axes.imshow(np.sqrt(shown), cmap="YlOrBr", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_aspect("equal")
        if size <= DRAWN_CLASSES:
            long = max(len(name) for name in classes) > 2
            axes.set_xticks(range(size), [shortened(name, 12) for name in classes], rotation=90 if long else 0)
            axes.set_yticks(range(size), [shortened(name, 12) for name in classes])
        axes.tick_params(length=0, labelsize=max(5.0, _fit(size)))
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        hits = int(counts.trace())
        text = (
            f"{hits:,} of {int(counts.sum()):,} test rows on the diagonal. The table of confused pairs lists the rest."
        )
        return rendered(canvas, name, "Confusion matrix", text)


def calibration(table: Sequence[Bin], error: float | None, name: str) -> Figure:
    """Draw accuracy against confidence by bin, and the diagonal of a perfectly calibrated model.

    Larger points have more rows.
    """
    full = [each for each in table if each.rows]
    rows = np.array([each.rows for each in full])
    x = [each.confidence or 0.0 for each in full]
    y = [each.accuracy or 0.0 for each in full]
    with styled():
        canvas, axes = new_axes(height=WIDTH * 0.8)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.vlines(x, x, y, color=SERIES[1], linewidth=1.2)
        axes.plot(x, y, color=SERIES[0], linewidth=1)
        axes.scatter(
            x, y, s=14 + 120 * np.sqrt(rows / rows.max()), color=SERIES[0], linewidths=0.8, edgecolors=PAPER, zorder=3
        )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.04)
        axes.set_xlabel("confidence: probability of the predicted class")
        axes.set_ylabel("share that is right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        gap = f"Expected calibration error {100 * (error or 0.0):.2f} %"
        text = f"{gap}, over {int(rows.sum()):,} test rows in {len(full)} bins."
        return rendered(canvas, name, "Calibration", text)


def scatter(true: npt.ArrayLike, predicted: npt.ArrayLike, name: str) -> Figure:
    """Draw predicted against true values, each of shape (n,), and the line where they are equal."""
    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    pad = 0.03 * (high - low) or 1.0
    with styled():
        canvas, axes = new_axes(height=WIDTH * 0.8)
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.scatter(x, y, s=9, color=SERIES[0], alpha=0.45, linewidths=0)
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(low - pad, high + pad)
        axes.set_xlabel("true value")
        axes.set_ylabel("predicted value")
        ranges = [f"{values.min():.4g} to {values.max():.4g}" for values in (x, y)]
        text = f"{len(x):,} test rows; true values {ranges[0]}, predicted {ranges[1]}."
        return rendered(canvas, name, "Predicted against true values", text)


def picture_png(levels: npt.NDArray[np.uint8]) -> bytes:
    """Return a picture of grey levels, shape (height, width), or of colours, (height, width, 3), as a PNG."""
    from PIL import Image  # comes with matplotlib

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(buffer, "PNG")
    return buffer.getvalue()


def picture_sheet(pictures: Sequence[npt.NDArray[np.uint8]], columns: int = 10) -> bytes:
    """Return pictures of equal size side by side, as one PNG."""
    height, width, *colours = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + 2), min(columns, len(pictures)) * (width + 2), *colours), 128, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + 2) + 1, number % columns * (width + 2) + 1
        sheet[top : top + height, left : left + width] = picture
    return picture_png(sheet)


def _fit(size: int) -> float:
    """Return the font size, in points, of the numbers in a matrix of ``size`` classes."""
    return 9.0 if size <= 10 else 90.0 / size if size <= DRAWN_CLASSES else 8.0
