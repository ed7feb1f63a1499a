"""What differs between the series, and whether their scores do."""

from __future__ import annotations

from nnlib.report.collect import compare_series, differing_keys
from nnlib.report.content import Content, Material, fill_template

MAX_COLUMNS = 6
"""Up to this many differing keys are columns of the table of scores; more are rows of another table."""


def make(material: Material) -> Content | None:
    """Make the tables of differing keys and of paired tests; None for a single series."""
    if not material.is_comparison:
        return None
    keys = differing_keys(material.series)
    html = fill_template(
        "sections/comparison",
        material,
        keys=keys,
        pairs=compare_series(material.series),
        in_scores=len(keys) <= MAX_COLUMNS,
    )
    return Content(html)
