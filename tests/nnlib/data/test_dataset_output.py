"""A new dataset replaces what an old manifest names, if asked to, and nothing of anybody else's."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import numpy as np
import pytest

from nnlib.core.errors import DataError, StorageError, UsageError
from nnlib.data.dataset import MANIFEST
from nnlib.data.importing.import_dataset import from_arrays, import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.synthetic import SynthOptions, synthesize
from nnlib.storage import LocalStorage
from nnlib.storage.output_folder import MARKER, FolderContent, claimed_folder

X = np.arange(40.0).reshape(20, 2)
Y = np.arange(20) % 2


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make(folder: Path, *, shards: int = 2, overwrite: bool = False) -> None:
    from_arrays(X, Y, str(folder), shards=shards, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["part-00001.parquet", MANIFEST])
@pytest.mark.parametrize("content", [b"PAR1", b"[]", b'{"shards": []}', b'{"name": "my app", "icons": []}'])
def test_a_file_of_others_stays(tmp_path: Path, name: str, content: bytes, overwrite: bool) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(UsageError, match=r"nnjobs has not made it|no manifest of a dataset") as caught:
        make(tmp_path, overwrite=overwrite)
    assert caught.value.where == {"file": str(tmp_path / name)}
    assert files_in(tmp_path) == before


def test_files_of_others_that_are_not_in_the_way_stay(tmp_path: Path) -> None:
    others = {"part-00002.parquet": b"1", "part-7.parquet": b"2", ".part.tmp": b"3", "dataset.json.bak": b"4"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    make(tmp_path)
    made = {MANIFEST, "part-00000.parquet", "part-00001.parquet"}
    assert set(files_in(tmp_path)) == made | set(others)
    with pytest.raises(UsageError, match=r"part-00002\.parquet: this file would be replaced"):
        make(tmp_path, shards=4, overwrite=True)
    make(tmp_path, shards=1, overwrite=True)
    assert set(files_in(tmp_path)) == (made - {"part-00001.parquet"}) | set(others)
    assert {name: files_in(tmp_path)[name] for name in others} == others


def test_a_dataset_stays_without_overwrite_and_while_its_successor_fails(tmp_path: Path) -> None:
    make(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(UsageError, match="there is a dataset already"):
        make(tmp_path)
    with pytest.raises(DataError):
        from_arrays(np.full((20, 2), np.nan), Y, str(tmp_path), overwrite=True)
    assert files_in(tmp_path) == before


def test_a_failed_import_leaves_no_folder_and_no_mark(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        from_arrays(np.full((20, 2), np.nan), Y, str(tmp_path / "new/deep/ds"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError):
        from_arrays(np.full((20, 2), np.nan), Y, str(tmp_path / "there"))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_of_two_at_once_the_second_is_refused(tmp_path: Path) -> None:
    content = FolderContent.of(MANIFEST, parts=2)
    with claimed_folder(LocalStorage(tmp_path), content):
        for second in (make, lambda folder: synthesize(str(folder), SynthOptions(rows=10, kind="blobs"))):
            with pytest.raises(StorageError, match=f"another nnjobs is writing here: process .* on {platform.node()}"):
                second(tmp_path)
        (tmp_path / "part-00000.parquet").write_bytes(b"of the first")
        with pytest.raises(StorageError, match="another nnjobs is writing here"):
            make(tmp_path)
        assert files_in(tmp_path)["part-00000.parquet"] == b"of the first"
    assert set(files_in(tmp_path)) == {"part-00000.parquet"}


def leave(folder: Path, **facts: object) -> None:
    """What a killed import of three shards leaves."""
    record = {"host": platform.node(), "process": 999_999_999, "started": None, "since": 1.0, "until": time.time() + 60}
    writes = {"names": [MANIFEST], "parts": 3}
    (folder / f"{MARKER}000004.json").write_text(json.dumps(record | {"released": False, "writes": writes} | facts))
    (folder / "part-00000.parquet").write_bytes(b"whole")
    (folder / ".part-00001.parquet.0123abcd.tmp").write_bytes(b"half")
    (folder / "part-00002.parquet").write_bytes(b"whole")
    (folder / "part-00003.parquet").write_bytes(b"the user's")


def test_what_a_killed_import_left_is_replaced_and_no_more(tmp_path: Path) -> None:
    leave(tmp_path)
    make(tmp_path)
    names = {MANIFEST, "part-00000.parquet", "part-00001.parquet", "part-00003.parquet"}
    assert set(files_in(tmp_path)) == names
    assert files_in(tmp_path)["part-00003.parquet"] == b"the user's"


def test_an_import_that_fails_after_a_killed_one_leaves_nothing_of_either(tmp_path: Path) -> None:
    leave(tmp_path)
    with pytest.raises(DataError):
        from_arrays(np.full((20, 2), np.nan), Y, str(tmp_path))
    assert set(files_in(tmp_path)) == {"part-00003.parquet"}
    make(tmp_path)


def test_a_killed_import_of_another_host_is_followed_when_its_lease_ends(tmp_path: Path) -> None:
    leave(tmp_path, host="elsewhere")
    with pytest.raises(StorageError, match="process 999999999 on elsewhere"):
        make(tmp_path)
    leave(tmp_path, host="elsewhere", until=time.time() - 1)
    make(tmp_path)


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="the output is a folder, and this is a file"):
        make(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("output", ["in", "in/ds", "in/x.csv", ".", "in/x.csv/ds", "../{here}/in"])
def test_an_import_never_goes_into_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.csv").write_text("a,y\n1,u\n2,v\n")
    (tmp_path / "y.npy").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    source = "in" if output == "in/ds" else "in/x.csv"
    with pytest.raises(UsageError, match="it could be destroyed"):
        import_dataset([source], output.replace("{here}", tmp_path.name), ImportOptions(label="y", overwrite=True))
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"in", "in/x.csv", "y.npy"}
    with pytest.raises(UsageError, match="it could be destroyed"):  # the labels' file is read, too
        import_dataset(["in/x.csv"], "y.npy", ImportOptions(label="y.npy", overwrite=True))


def test_a_content_is_names_and_numbered_parts() -> None:
    content = FolderContent.of("a", "b", parts=2)
    names = ["a", "b", "part-00000.parquet", "part-00001.parquet"]
    assert all(name in content for name in names)
    assert not any(
        name in content
        for name in ["c", "part-00002.parquet", "part-000000.parquet", "part-0.parquet", "part-00000", 3]
    )
    assert FolderContent.from_json(json.loads(json.dumps(content.to_json()))) == content
    assert (content | FolderContent.of("c", parts=1)) == FolderContent.of("a", "b", "c", parts=2)
