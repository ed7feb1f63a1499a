"""What the workers did: their drift, the time of each phase, bytes."""

from __future__ import annotations

from nnlib.report import formatting, learning_figures, time_figures
from nnlib.report.content import Content, Material, figure_files, fill_template


def make(material: Material) -> Content | None:
    """Draw drift, lengths of rounds, time and bytes; None where the runs recorded none of it."""
    series, runs = material.series, material.runs
    drawings = (
        learning_figures.drift(series),
        learning_figures.round_lengths(runs),
        time_figures.phases(runs),
        time_figures.shuffled(runs),
        time_figures.uploaded(runs),
        time_figures.score_by_bytes(series),
    )
    figures = [drawing for drawing in drawings if drawing is not None]
    if not figures:
        return None
    html = fill_template(
        "sections/work",
        material,
        work=figures,
        lengths="; ".join(formatting.describe_round_cost(run) for run in runs if run.rounds_planned is None),
        sent=sorted((each for each in series if each.sent is not None), key=lambda each: each.sent or 0.0),
    )
    return Content(html, figure_files(figures))
