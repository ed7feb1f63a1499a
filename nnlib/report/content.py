"""What a section of the report is made from, and what it is made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nnlib.core.metrics import METRICS, metrics_of
from nnlib.report import formatting
from nnlib.report.collect import RunFacts, Series
from nnlib.report.drawing import Figure

SCORE_NAMES = {name: metric.title for name, metric in METRICS.items()}


@dataclass(frozen=True)
class Material:
    """What a report is about: one series, or several to compare."""

    series: Sequence[Series]

    @cached_property
    def runs(self) -> list[RunFacts]:
        """The runs of the series, each once, in the order of the series."""
        return list({id(each.run): each.run for each in self.series}.values())

    @property
    def is_comparison(self) -> bool:
        """Whether the report shows several series."""
        return len(self.series) > 1

    @property
    def has_classes(self) -> bool:
        """Whether the task is classification."""
        return self.series[0].task == "classification"

    @property
    def main_score(self) -> str:
        """The score that is compared, a key of `SCORE_NAMES`."""
        return self.series[0].score

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores of the task that any kept model has, the main one first."""
        names = metrics_of(self.series[0].task)
        return tuple(
            name for name in names if any(value is not None for each in self.series for value in each.values(name))
        )


@dataclass(frozen=True)
class Content:
    """A section's content.

    ``html`` stands below the section's heading. ``files`` are written to the report's folder ``figures``, by name.
    ``title`` replaces the section's title.
    """

    html: Markup
    files: dict[str, bytes] = field(default_factory=dict)
    title: str | None = None


@dataclass(frozen=True)
class Section:
    """A section of the page: its heading, and the function that makes its content (None: this report has none)."""

    title: str
    make: Callable[[Material], Content | None]


def figure_files(figures: Sequence[Figure]) -> dict[str, bytes]:
    """Return the files of some figures by name: each as SVG and as PNG."""
    files = {f"{figure.name}.svg": figure.svg for figure in figures}
    return files | {f"{figure.name}.png": figure.png for figure in figures}


def fill_template(name: str, material: Material, **values: Any) -> Markup:
    """Return ``templates/NAME.html.j2`` filled with the material and other values, every text in it escaped."""
    text = resources.files("nnlib.report").joinpath(f"templates/{name}.html.j2").read_text("utf-8")
    common = {
        "material": material,
        "series": material.series,
        "runs": material.runs,
        "scores": material.scores,
        "names": SCORE_NAMES,
        "main": material.main_score,
    }
    return Markup(_environment().from_string(text).render(**common, **values))


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "score": formatting.format_score,
        "share": formatting.format_share,
        "number": formatting.format_number,
        "interval": formatting.format_interval,
        "apart": formatting.format_difference,
        "p": formatting.format_p_value,
        "size": formatting.format_size,
        "clock": formatting.format_duration,
        "value": json.dumps,
        "svg": lambda figure: Markup(figure.inline),  # drawn here, with every text in it escaped
    }
    environment.globals |= {
        "drawing": _drawing,
        "wilson": formatting.accuracy_interval,
        "verify": formatting.verify_command,
    }
    return environment


def _drawing(figure: Figure, caption: str = "") -> Markup:
    """A figure in the page: its title, the SVG, a caption."""
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else ""
    return Markup('<figure class="drawing">\n<h4>{}</h4>\n{}\n{}</figure>\n').format(
        figure.title, Markup(figure.inline), below
    )
