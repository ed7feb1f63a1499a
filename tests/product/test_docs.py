"""What the pages say of files is true, and the words that they explain are used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from product import ROOT

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"`((?:nnlib|jobs|tests|configs|docs|bootstrap)(?:/[\w.*-]+)+/?)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = [name for name in FILE.findall(text) if not list(ROOT.glob(name.rstrip("/")))]
    broken = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert missing == [] and broken == []


def test_the_glossary_explains_each_word_once() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs/glossary.md").read_text("utf-8"), re.MULTILINE)
    words = [word for row in rows if row not in ("word", "---") for word in row.split(", ")]
    assert len(words) > 50
    assert sorted(words) == sorted(set(words))
