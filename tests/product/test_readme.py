"""The README's own commands, run as a reader would, in the order they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from product import ROOT

from nnlib.config.reference import reference

BLOCK = re.compile(r"<!-- test: (?P<kind>.+?) -->\n```\w+\n(?P<text>.+?)```", re.DOTALL)


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """On the file the README speaks of: the iris flowers with their names, as a CSV with a header."""
    datasets = pytest.importorskip("sklearn.datasets")
    iris = datasets.load_iris()
    lines = ["sepal_length,sepal_width,petal_length,petal_width,species"]
    for row, label in zip(iris.data, iris.target, strict=True):
        lines.append(",".join([*(f"{value:g}" for value in row), str(iris.target_names[label])]))
    (tmp_path / "flowers.csv").write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for block in BLOCK.finditer((ROOT / "README.md").read_text("utf-8")):
        kind, text = block["kind"], block["text"]
        if kind.startswith("file "):
            (tmp_path / kind.removeprefix("file ")).write_text(text, "utf-8")
        elif kind == "python":
            done = subprocess.run(
                [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            wanted = re.search(r"# (\[.+\])$", text.strip())
            assert wanted is not None
            assert done.stdout.strip() == wanted[1]
            ran += 1
        else:
            for line in text.splitlines():
                command = line.split("#")[0].split()
                done = subprocess.run(
                    command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{line}\n{done.stderr}"
                ran += 1
    assert ran >= 8


def test_the_reference_of_keys_is_the_schema() -> None:
    assert (ROOT / "docs/configuration.md").read_text("utf-8") == reference(), (
        "renew it: python -m nnlib.config.reference > docs/configuration.md"
    )


@pytest.mark.parametrize(
    "page", ["README.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"
