"""What every storage promises (`StorageContract`, to be inherited by the test of each backend), and local files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from product import ROOT
from storage_contract import StorageContract

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage import LocalStorage, Storage, storage


def left(root: Path) -> list[str]:
    """All that lies below a directory, temporary files too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Storage:
        return LocalStorage(tmp_path / "root of it")

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = LocalStorage(tmp_path)
        store.write("file", b"old")

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        for write in (store.write, store.create):
            for name in ("file", "other"):
                with pytest.raises(StorageError, match="No space left") as caught:
                    write(name, b"new")
                assert "--resume" in str(caught.value)
                assert caught.value.where == {"file": str(tmp_path / name)}
        assert left(tmp_path) == ["file"]
        assert store.read("file") == b"old"

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        store = LocalStorage(tmp_path)
        store.write("folder/x", b"")
        with pytest.raises(StorageError, match="cannot write"):
            store.write("folder", b"y")
        assert store.create("folder", b"y") is False
        with pytest.raises(StorageError, match="cannot read"):
            store.read("folder")
        assert left(tmp_path) == ["folder", "folder/x"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_directory(self, tmp_path: Path) -> None:
        store = LocalStorage(tmp_path)
        store.write("kept", b"x")
        tmp_path.chmod(0o500)
        try:
            for write in (store.write, store.create):
                with pytest.raises(StorageError, match="Permission denied"):
                    write("file", b"y")
            assert left(tmp_path) == ["kept"]
        finally:
            tmp_path.chmod(0o700)

    def test_a_killed_writer_leaves_the_old_file(self, tmp_path: Path) -> None:
        store = LocalStorage(tmp_path)
        store.write("file", b"old")
        code = (
            "import os, sys; from nnlib.storage import LocalStorage\n"
            "with LocalStorage(sys.argv[1]).writing('file') as stream:\n"
            "    stream.write(b'half'); stream.flush(); os._exit(9)"
        )
        root = str(ROOT)
        process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
        assert process.returncode == 9
        assert store.names() == ["file"]
        assert store.read("file") == b"old"
        assert len(left(tmp_path)) == 2
        store.sweep()
        assert left(tmp_path) == ["file"]

    def test_an_unusable_name_is_a_storage_error(self, tmp_path: Path) -> None:
        store = LocalStorage(tmp_path)
        for use in (store.read, store.exists, store.names, lambda name: store.write(name, b"")):
            with pytest.raises(StorageError):
                use("x" * 5000)

    def test_a_dangling_link_can_be_deleted_and_a_link_is_not_followed(self, tmp_path: Path) -> None:
        store = LocalStorage(tmp_path)
        store.write("target/x", b"1")
        (tmp_path / "link").symlink_to(tmp_path / "target")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        store.delete("link")
        store.delete("dangling")
        assert left(tmp_path) == ["target", "target/x"]


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert storage("runs/a").root == str(tmp_path / "runs/a")
    assert storage(f"file://{tmp_path}/b").root == str(tmp_path / "b")
    assert storage("~/c").root == str(tmp_path / "home/c")
    assert storage("~no such user/d").root == str(tmp_path / "~no such user/d")
    assert storage(str(tmp_path)).root == str(tmp_path)
    with pytest.raises(UsageError, match="cannot use gopher://"):
        storage("gopher://x/y")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    store = storage(str(tmp_path / "file"))
    assert store.names() == [] and not store.exists("x")
    with pytest.raises(StorageError):
        store.write("x", b"")
    assert left(tmp_path) == ["file"]
