"""The figures of a report, drawn by matplotlib in one fixed style.

A `Figure` becomes a PNG and an SVG file, and the SVG within the page, where its colours are the page's CSS variables:
so it is light or dark with the page. Equal data give equal bytes: no dates, no random ids, no user's matplotlibrc.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, cast

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from nnlib.report.collect import PHASES, RunFacts, Series
from nnlib.statistics import Bin

INK, MUTED, GRID, PAPER = "#1b2027", "#566070", "#dfe4ea", "#ffffff"
SERIES = ("#0b5cc0", "#bf3f0d", "#13753a", "#8331d6", "#0c6a80", "#b3165f", "#8a5a00", "#4a525d")
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"c{number}" for number, colour in enumerate(SERIES)
}
"""Colours of the figures -> CSS variables of the page that stand for them there."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
WIDTH, HEIGHT = 4.1, 2.7
"""Inches: small, so that 9 points are readable on a phone, where a figure is this wide."""
NUMBERED_CLASSES = 16
"""Up to this many classes the confusion matrix has its counts written into it."""
DRAWN_CLASSES = 40
"""Up to this many classes its cells are drawn one by one, in the page's colours."""
DRAWN_SERIES = 8
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))
LABEL = 26
"""Characters of a label."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nnjobs",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "savefig.dpi": 160,
}

NAMES = {
    "accuracy": "test accuracy",
    "top_5_accuracy": "test top-5 accuracy",
    "loss": "test loss",
    "r2": "test R²",
    "mse": "test MSE",
    "mae": "test MAE",
}


@dataclass(frozen=True)
class Figure:
    """A drawing with its words: ``title`` above it, ``description`` for those who do not see it."""

    name: str
    title: str
    description: str
    svg: bytes
    png: bytes
    inline: str


def curve(series: Sequence[Series], score: str) -> Figure:
    """A test score against epochs: a line for the mean, a band from the lowest to the highest trial."""
    drawn = [each for each in series if score in each.curves][:DRAWN_SERIES]
    with styled():
        canvas, axes = _axes()
        for number, each in _numbered(series, drawn):
            values = each.curves[score]
            low, mean, high = (_over_trials(values, how) for how in (np.nanmin, np.nanmean, np.nanmax))
            colour = SERIES[number % len(SERIES)]
            if len(values) > 1:
                axes.fill_between(each.epochs, low, high, color=colour, alpha=0.18, linewidth=0)
            _line(axes, each.epochs, mean, number, each.label)
        share = score.endswith("accuracy")
        axes.set_xlabel("epoch")
        axes.set_ylabel(NAMES[score])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        axes.set_ylim(*_settled([each.curves[score] for each in drawn]))
        if share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
        _legend(axes, drawn, "lower right" if share or score == "r2" else "upper right")
        words = [f"{each.label}: {_course(each, score)}" for each in drawn]
        return _rendered(canvas, f"curve-{score}", f"T{NAMES[score][1:]} against epochs", ". ".join(words))


def drift(series: Sequence[Series]) -> Figure | None:
    """How far workers go apart in a round; None where no run has more than one worker."""
    drawn = [each for each in series if len(each.drift) and each.run.spec.workers > 1][:DRAWN_SERIES]
    if not drawn:
        return None
    with styled():
        canvas, axes = _axes()
        for number, each in _numbered(series, drawn):
            colour = SERIES[number % len(SERIES)]
            axes.fill_between(
                each.drift_rounds, each.drift[:, 0], each.drift[:, 2], color=colour, alpha=0.18, linewidth=0
            )
            _line(axes, each.drift_rounds, each.drift[:, 1], number, each.label)
        axes.set_xlabel("round")
        axes.set_ylabel("distance from the average,\nrelative to its norm")
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _legend(axes, drawn, "upper right")
        words = [
            f"{each.label}: {each.drift[0, 1]:.3g} in the first round, {each.drift[-1, 1]:.3g} in the last"
            for each in drawn
        ]
        return _rendered(canvas, "drift", "Drift of the workers", "Mean over workers. " + ". ".join(words))


def phases(runs: Sequence[RunFacts]) -> Figure | None:
    """Seconds by phase, a bar a run."""
    drawn = [run for run in runs if run.times is not None]
    if not drawn:
        return None
    with styled():
        canvas, axes = _axes(height=1.35 + 0.32 * len(drawn))
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
        axes.set_yticks(range(len(drawn)), [_short(run.name) for run in drawn])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel("seconds")
        canvas.legend(
            loc="outside upper left", ncols=6, fontsize=8, handlelength=0.8, columnspacing=0.8, handletextpad=0.4
        )
        words = [
            f"{run.name}: " + ", ".join(f"{phase} {run.times.phases[phase]:.2f}" for phase in PHASES)
            for run in drawn
            if run.times is not None
        ]
        return _rendered(canvas, "phases", "Seconds by phase", "; ".join(words))


def shuffled(runs: Sequence[RunFacts]) -> Figure | None:
    """Bytes that each round carried from mappers to reducers."""
    drawn = [run for run in runs if run.times is not None and run.times.bytes][:DRAWN_SERIES]
    if not drawn:
        return None
    with styled():
        canvas, axes = _axes()
        most = max(max(run.times.bytes) for run in drawn if run.times is not None)
        unit, size = next((each for each in UNITS if most >= each[1]), UNITS[-1])
        for number, run in enumerate(drawn):
            assert run.times is not None
            amounts = np.array(run.times.bytes) / size
            axes.step(
                run.times.rounds,
                amounts,
                where="mid",
                color=SERIES[number],
                linestyle=DASHES[number % 4],
                marker="o" if len(amounts) < 3 else "",
                markersize=4,
                label=f" {_short(run.name)}",
            )
        axes.set_xlabel("round")
        axes.set_ylabel(f"{unit} a round")
        axes.set_ylim(bottom=0.0, top=1.15 * most / size or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if len(drawn) > 1:
            axes.legend(loc="best")
        words = [
            f"{run.name}: {run.times.bytes[0] / size:.3g} {unit} in the first round, "
            f"{sum(run.times.bytes) / size:.3g} {unit} in all"
            for run in drawn
            if run.times is not None
        ]
        return _rendered(canvas, "shuffled", "Bytes shuffled a round", "; ".join(words))


def confusion(matrix: npt.ArrayLike, classes: Sequence[str], name: str) -> Figure:
    """True classes down, predicted ones across; errors stand out: their colour is scaled apart from the diagonal's."""
    counts = np.asarray(matrix, np.int64)
    size = len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(size, dtype=bool), 0.0, share)
    strength = errors / max(float(errors.max()), 1e-30)
    with styled():
        canvas, axes = _axes(height=WIDTH * 0.92)
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
            axes.set_xticks(range(size), [_short(name, 12) for name in classes], rotation=90 if long else 0)
            axes.set_yticks(range(size), [_short(name, 12) for name in classes])
        axes.tick_params(length=0, labelsize=max(5.0, _fit(size)))
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        hits = int(counts.trace())
        text = (
            f"{hits:,} of {int(counts.sum()):,} test rows on the diagonal. The table of confused pairs lists the rest."
        )
        return _rendered(canvas, name, "Confusion matrix", text)


def calibration(table: Sequence[Bin], error: float | None, name: str) -> Figure:
    """Accuracy against confidence by bin, above it the diagonal of a perfectly calibrated model; points as large as
    their rows are many."""
    full = [each for each in table if each.rows]
    rows = np.array([each.rows for each in full])
    x = [each.confidence or 0.0 for each in full]
    y = [each.accuracy or 0.0 for each in full]
    with styled():
        canvas, axes = _axes(height=WIDTH * 0.8)
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
        return _rendered(canvas, name, "Calibration", text)


def scatter(true: npt.ArrayLike, predicted: npt.ArrayLike, name: str) -> Figure:
    """Predicted against true values, and the line where they are equal."""
    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    pad = 0.03 * (high - low) or 1.0
    with styled():
        canvas, axes = _axes(height=WIDTH * 0.8)
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.scatter(x, y, s=9, color=SERIES[0], alpha=0.45, linewidths=0)
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(low - pad, high + pad)
        axes.set_xlabel("true value")
        axes.set_ylabel("predicted value")
        ranges = [f"{values.min():.4g} to {values.max():.4g}" for values in (x, y)]
        text = f"{len(x):,} test rows; true values {ranges[0]}, predicted {ranges[1]}."
        return _rendered(canvas, name, "Predicted against true values", text)


def picture_png(grey: npt.NDArray[np.uint8]) -> bytes:
    """A picture of grey levels (height, width) as a PNG."""
    from PIL import Image  # comes with matplotlib

    buffer = io.BytesIO()
    Image.fromarray(grey, "L").save(buffer, "PNG")
    return buffer.getvalue()


def picture_sheet(pictures: Sequence[npt.NDArray[np.uint8]], columns: int = 10) -> bytes:
    """Pictures of equal size beside each other, as one PNG."""
    height, width = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + 2), min(columns, len(pictures)) * (width + 2)), 128, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + 2) + 1, number % columns * (width + 2) + 1
        sheet[top : top + height, left : left + width] = picture
    return picture_png(sheet)


@contextmanager
def styled() -> Iterator[None]:
    """Our style alone, whatever matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in other scripts: the page's own fonts have them
        mpl.rcdefaults()
        mpl.rcParams.update(cast(Any, STYLE))
        yield


def _axes(height: float = HEIGHT) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    return canvas, canvas.add_subplot()


def _line(axes: Axes, x: Sequence[int], y: Any, number: int, label: str) -> None:
    axes.plot(
        x,
        y,
        color=SERIES[number % len(SERIES)],
        linestyle=DASHES[number % len(DASHES)],
        marker="o" if len(x) < 3 else "",
        markersize=4,
        label=f" {_short(label)}",  # a label that begins with _ would be left out
    )


def _legend(axes: Axes, drawn: Sequence[Series], place: Literal["lower right", "upper right"]) -> None:
    if len(drawn) > 1:
        axes.legend(loc=place)


def _numbered(series: Sequence[Series], drawn: Sequence[Series]) -> Iterator[tuple[int, Series]]:
    """A series has the same colour in every figure."""
    return ((number, each) for number, each in enumerate(series) if any(each is other for other in drawn))


def _over_trials(values: npt.NDArray[np.float64], how: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an epoch that no trial was scored at is NaN
        return how(values, axis=0)


def _settled(curves: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """The range of scores once the first tenth of the epochs is over: the way to it would flatten all the rest."""
    late = [values[:, max(1, values.shape[1] // 10) :] if values.shape[1] > 4 else values for values in curves]
    known = np.concatenate([values[np.isfinite(values)] for values in late])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    pad = max(0.06 * (high - low), 0.004)
    return low - pad, min(high + pad, 1.0 + 0.2 * pad) if high <= 1.0 else high + pad


def _course(series: Series, score: str) -> str:
    mean = _over_trials(series.curves[score], np.nanmean)
    known = np.flatnonzero(np.isfinite(mean))
    first, last = known[0], known[-1]
    form = "{:.1%}" if score.endswith("accuracy") else "{:.4g}"
    return (
        f"{form.format(mean[first])} at epoch {series.epochs[first]}, {form.format(mean[last])} at epoch "
        f"{series.epochs[last]}, the mean of {len(series.trials)} trials"
    )


def _fit(size: int) -> float:
    """Points of the numbers within a matrix of so many classes."""
    return 9.0 if size <= 10 else 90.0 / size if size <= DRAWN_CLASSES else 8.0


def _short(text: str, limit: int = LABEL) -> str:
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _rendered(canvas: Canvas, name: str, title: str, description: str) -> Figure:
    png, svg = io.BytesIO(), io.BytesIO()
    canvas.savefig(png, format="png", metadata={"Software": None})
    canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", svg.getvalue().decode(), flags=re.DOTALL)
    return Figure(name, title, description, text.encode(), png.getvalue(), _inline(text, name, title, description))


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """The SVG as part of a page: its ids are its own, its colours the page's, its words stand for it."""
    body = svg[svg.index("<svg") :]
    body = (
        re.sub(r'\s(?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", body[: body.index(">")])
        + body[body.index(">") :]
    )
    body = body.replace("xlink:href", "href")
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", body)
    body = recoloured(body, VARIABLES)
    words = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
    return head + body.removeprefix("<svg").replace(">", f">{words}", 1)


def recoloured(svg: str, variables: Mapping[str, str]) -> str:
    """Colours as the page's CSS variables."""
    for colour, variable in variables.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
