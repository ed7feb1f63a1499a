"""The configuration files of the runs."""

from __future__ import annotations

from nnlib.report.content import Content, Material, fill_template


def make(material: Material) -> Content:
    """Show each run's resolved configuration."""
    return Content(fill_template("sections/configuration", material))
