"""The commands of the README and of docs/data.md, run as a reader would, in the order they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_examples import run_examples
from product import ROOT

from nnlib.config.reference import reference


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    """On the file the README speaks of: the iris flowers with their names, as a CSV with a header."""
    datasets = pytest.importorskip("sklearn.datasets")
    iris = datasets.load_iris()
    lines = ["sepal_length,sepal_width,petal_length,petal_width,species"]
    for row, label in zip(iris.data, iris.target, strict=True):
        lines.append(",".join([*(f"{value:g}" for value in row), str(iris.target_names[label])]))
    (tmp_path / "flowers.csv").write_text("\n".join(lines) + "\n")
    assert run_examples("README.md", tmp_path) >= 12


def test_the_examples_of_the_data_page_work(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    assert run_examples("docs/data.md", tmp_path) >= 8


def test_the_examples_of_the_page_on_torch_work(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlxtend")
    assert run_examples("docs/torch.md", tmp_path) >= 3


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
