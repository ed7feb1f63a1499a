"""Scores against epochs."""

from __future__ import annotations

from nnlib.report import learning_figures
from nnlib.report.content import Content, Material, figure_files, fill_template
from nnlib.report.drawing import DRAWN_SERIES


def make(material: Material) -> Content:
    """Draw the learning curves of the main score and of the loss."""
    drawn = [score for score in (material.main_score, "loss") if any(score in each.curves for each in material.series)]
    figures = [learning_figures.curve(material.series, score) for score in drawn]
    undrawn = max(0, len(material.series) - DRAWN_SERIES)
    html = fill_template("sections/curves", material, curves=figures, undrawn=undrawn)
    return Content(html, figure_files(figures))
