"""The page of a report: its sections in order, and the frame around them.

A new section is one file, whose function makes a `Content` from a `Material`, and one line of `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnlib.core.progress import progressing
from nnlib.report import formatting
from nnlib.report.collect import Series
from nnlib.report.content import Content, Material, Section, fill_template
from nnlib.report.sections import comparison, configuration, curves, errors, losses, model, provenance, scores, work

SECTIONS: dict[str, Section] = {
    "comparison": Section("Comparison", comparison.make),
    "scores": Section("Scores", scores.make),
    "curves": Section("Learning curves", curves.make),
    "work": Section("Workers and time", work.make),
    "losses": Section("Losses", losses.make),
    "errors": Section("Errors", errors.make),
    "model": Section("Model", model.make),
    "provenance": Section("Provenance", provenance.make),
    "configuration": Section("Configuration", configuration.make),
}
"""Anchor -> section, in the order of the page."""


@dataclass
class Report:
    """A report: the page, and its other files by name."""

    html: str
    files: dict[str, bytes]


def make_report(series: Sequence[Series]) -> Report:
    """Make the report of some series: draw its figures and fill its page."""
    material = Material(series)
    contents: dict[str, tuple[str, Content]] = {}
    with progressing("writing the report", len(SECTIONS), "sections") as advance:
        for number, (anchor, section) in enumerate(SECTIONS.items()):
            advance(number)
            content = section.make(material)
            if content is not None:
                contents[anchor] = content.title or section.title, content
    runs = material.runs
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    html = fill_template("page", material, title=title, contents=contents, losses=formatting.describe_losses(runs))
    files = {name: data for _, content in contents.values() for name, data in content.files.items()}
    return Report(str(html), files)
