"""Workers that a quorum went on without, and tasks that were lost."""

from __future__ import annotations

from nnlib.report import formatting
from nnlib.report.content import Content, Material, fill_template
from nnlib.report.lost_workers import SHOWN


def make(material: Material) -> Content | None:
    """Make the tables of missing workers and lost tasks; None where nothing was lost."""
    losses = formatting.describe_losses(material.runs)
    lost = [(run.name, loss) for run in material.runs for loss in run.losses[:SHOWN]]
    if not losses and not lost:
        return None
    unlisted = sum(max(0, len(run.losses) - SHOWN) for run in material.runs)
    return Content(fill_template("sections/losses", material, losses=losses, lost=lost, unlisted=unlisted))
