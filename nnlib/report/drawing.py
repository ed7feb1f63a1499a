"""How a report's figures look: one fixed style, drawn by matplotlib.

A `Figure` becomes a PNG and an SVG file, and the SVG within the page, where its colours are the page's CSS variables:
so it is light or dark with the page. The same data have the same bytes: no dates, no random ids, no
user's matplotlibrc.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from nnlib.report.collect import Series

INK, MUTED, GRID, PAPER = "#1b2027", "#566070", "#dfe4ea", "#ffffff"
SERIES = ("#0b5cc0", "#bf3f0d", "#13753a", "#8331d6", "#0c6a80", "#b3165f", "#8a5a00", "#4a525d")
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"c{number}" for number, colour in enumerate(SERIES)
}
"""Colours of the figures -> CSS variables of the page that stand for them there."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
WIDTH, HEIGHT = 4.1, 2.7
"""Inches: small, so that 9 points are readable on a phone, where a figure is this wide."""
DRAWN_SERIES = 8
LABEL = 26
"""Characters of a label."""
MAX_COLUMNS = 3
LEGEND_HANDLE, LEGEND_CHARACTER, LEGEND_ROW = 0.5, 0.065, 0.17
"""Inches in a legend: the width of a line with the space around it and of a character, the height of a row."""

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


@dataclass(frozen=True)
class Figure:
    """A figure: ``title`` is above it, ``description`` is for people who cannot see it.

    ``svg`` and ``png`` are its files, ``inline`` is the SVG as part of a page.
    """

    name: str
    title: str
    description: str
    svg: bytes
    png: bytes
    inline: str


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the report's style, whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in other scripts: the page's own fonts have them
        mpl.rcdefaults()
        mpl.rcParams.update(cast(Any, STYLE))
        yield


def new_axes(height: float = HEIGHT) -> tuple[Canvas, Axes]:
    """Make a canvas of `WIDTH` by ``height`` inches with one pair of axes."""
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    return canvas, canvas.add_subplot()


def draw_line(axes: Axes, x: Sequence[int], y: Any, number: int, label: str) -> None:
    """Draw a line in the colour and dashes of the series with this number; a short one with markers."""
    axes.plot(
        x,
        y,
        color=SERIES[number % len(SERIES)],
        linestyle=DASHES[number % len(DASHES)],
        marker="o" if len(x) < 3 else "",
        markersize=4,
        label=f" {shortened(label)}",  # a label that begins with _ would be left out
    )


def draw_legend(canvas: Canvas, names: Sequence[str]) -> None:
    """Draw the legend of several lines above the axes, in as many columns as fit; none for one line.

    The canvas grows where the legend has more than two rows.
    """
    if len(names) > 1:
        longest = max(len(shortened(name)) for name in names)
        columns = min(max(int(WIDTH / (LEGEND_HANDLE + LEGEND_CHARACTER * longest)), 1), MAX_COLUMNS)
        canvas.set_figheight(canvas.get_figheight() + LEGEND_ROW * max(0, -(-len(names) // columns) - 2))
        canvas.legend(loc="outside upper left", ncols=columns, columnspacing=1.2)


def numbered(series: Sequence[Series], drawn: Sequence[Series]) -> Iterator[tuple[int, Series]]:
    """Return the drawn series with their numbers among all: a series has the same colour in every figure."""
    return ((number, each) for number, each in enumerate(series) if any(each is other for other in drawn))


def shortened(text: str, limit: int = LABEL) -> str:
    """Return printable text of at most ``limit`` characters."""
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def rendered(canvas: Canvas, name: str, title: str, description: str) -> Figure:
    """Render a canvas as PNG, as SVG, and as SVG within a page."""
    png, svg = io.BytesIO(), io.BytesIO()
    canvas.savefig(png, format="png", metadata={"Software": None})
    canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", svg.getvalue().decode(), flags=re.DOTALL)
    return Figure(name, title, description, text.encode(), png.getvalue(), _inline(text, name, title, description))


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """Return the SVG as part of a page: with ids that are unique in it, its colours, and the figure's text."""
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
    text = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
    return head + body.removeprefix("<svg").replace(">", f">{text}", 1)


def recoloured(svg: str, variables: Mapping[str, str]) -> str:
    """Replace colours by the page's CSS variables."""
    for colour, variable in variables.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
