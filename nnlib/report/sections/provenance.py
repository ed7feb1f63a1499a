"""Where the runs come from: addresses, hashes, versions, and the command that verifies them."""

from __future__ import annotations

from nnlib.report.content import Content, Material, fill_template


def make(material: Material) -> Content:
    """List each run's address, hashes and versions."""
    return Content(fill_template("sections/provenance", material))
