"""What a torch model is made of is found, hashed and part of a run's identity."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nnlib.config.code_files import installed_source, read_sources
from nnlib.config.identity import config_hash, resume_problems
from nnlib.config.load import load_config
from nnlib.config.options import torch_options
from nnlib.config.render import from_resolved, to_yaml
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError


def written(folder: Path, model: str, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "c.yaml").write_text(f"data: {{path: d}}\nmodel: {{kind: torch, {model}}}\n")
    return folder / "c.yaml"


def options(config: Config) -> Any:
    return torch_options(config.model)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_files_are_relative_to_the_configuration_and_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a", 'factory: "nets:build", files: [nets.py]', nets="x = 1\n")
    config = load_config(path)
    assert options(config).files == [str(tmp_path / "a/nets.py")]
    assert options(config).sha256 == {"nets.py": sha256("x = 1\n")}
    assert read_sources(config) == {"nets.py": "x = 1\n"}
    assert from_resolved(to_yaml(config)) == config

    (tmp_path / "b").mkdir()
    (tmp_path / "b/nets.py").write_text("x = 2\n")
    monkeypatch.chdir(tmp_path / "b")  # an override is relative to the current folder
    other = load_config(path, ["model.files=[nets.py]"])
    assert options(other).sha256 == {"nets.py": sha256("x = 2\n")}
    assert config_hash(config, "") != config_hash(other, "")
    (problem,) = resume_problems(config, other)
    assert "nets.py" in problem and "changed" in problem


def test_where_a_file_lies_is_no_part_of_the_identity(tmp_path: Path) -> None:
    hashes = {
        config_hash(load_config(written(tmp_path / name, 'factory: "nets:b", files: [nets.py]', nets="")), "")
        for name in ("a", "b")
    }
    assert len(hashes) == 1


def test_arguments_are_one_value_of_the_identity(tmp_path: Path) -> None:
    hashes = [
        config_hash(load_config(written(tmp_path, f"factory: simple-nn, arguments: {arguments}")), "")
        for arguments in ("{}", "{a: {}}", "{a: {b: 1}}", "{a.b: 1}", "{a: 1}")
    ]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("model", "files", "says"),
    [
        ('factory: "nets:build", files: [none.py]', {}, r"none\.py: there is no such file"),
        ('factory: "nets:build", files: [nets.txt]', {}, r"NAME\.py"),
        ('factory: "nets:build", files: [nets.py]', {"nets": "def f(:\n"}, r"nets\.py: line 1: no Python"),
        ('factory: "nets:build", files: [nets.py]', {"nets": "#" * (1 << 20) + "\n"}, "larger than 1 MiB"),
        ('factory: "nets:build", files: [nets.py, nets.py]', {"nets": ""}, "two files have this name"),
        ('factory: "nets.py:build", files: [nets.py]', {"nets": ""}, "write nets:build"),
        ('factory: "./nets.py:build"', {}, "write nets:FUNCTION"),
        ('factory: "no_such_package.nets:build"', {}, r"there is no module no_such_package\.nets"),
        ('factory: "sys:exit"', {}, "the module sys has no Python source|there is no module sys"),
        ('factory: simple-nn, from: w.safetensors', {}, r"w\.safetensors: there is no such file"),
        ('factory: simple-nn, arguments: {shape: 1}', {}, "shape come from the dataset"),
        ('factory: simple-nn, arguments: {a: .inf}', {}, "must be what JSON can hold|arguments"),
        (f'factory: "nets:b", files: [nets.py], sha256: {{nets.py: {"0" * 64}}}', {"nets": ""}, "is not what model"),
        ("arguments: {}", {}, r"model\.factory: is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, model: str, files: dict[str, str], says: str) -> None:
    path = written(tmp_path, model, **files)
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(path)
    assert caught.value.exit_code == 2 and "\n" not in caught.value.message


def test_a_file_that_changes_after_it_was_read_is_noticed(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, 'factory: "nets:build", files: [nets.py]', nets=""))
    (tmp_path / "nets.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="has changed since"):
        read_sources(config)


def test_an_installed_module_is_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site/some_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "nets.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert installed_source("some_package.nets") == b"y = 1\n"
    assert installed_source("json.decoder") == Path(str(json.decoder.__file__)).read_bytes()
    config = load_config(written(tmp_path, 'factory: "some_package.nets:build"'))
    assert options(config).sha256 == {"some_package.nets": sha256("y = 1\n")}
    assert "some_package" not in sys.modules


def test_files_cannot_be_swept_but_arguments_can(tmp_path: Path) -> None:
    path = written(tmp_path, 'factory: "nets:build", files: [nets.py]', nets="")
    config = load_config(path, ["sweep.model.arguments.width=[3, 4]"])
    assert config.sweep == {"model.arguments.width": [3, 4]}
    with pytest.raises(ConfigError, match=r"cannot differ in 'model\.files'"):
        load_config(path, ["sweep.model.files=[[a.py]]"])
