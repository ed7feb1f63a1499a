"""Outputs never destroy what is not ours: what a name stands for when it is written, and how outputs meet inputs."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage import LocalStorage, file_at, is_stream, storage
from nnlib.storage.outputs import refuse_overlap, relation


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("write", ["write", "write_all"])
class TestWhatIsWritten:
    @staticmethod
    def put(store: LocalStorage, name: str, data: bytes, write: str) -> None:
        store.write(name, data) if write == "write" else store.write_all({name: data})

    def test_a_link_is_written_through(self, tmp_path: Path, write: str) -> None:
        (tmp_path / "far").mkdir()
        (tmp_path / "far/target").write_bytes(b"old")
        (tmp_path / "far/second").symlink_to("target")
        (tmp_path / "link").symlink_to(tmp_path / "far/second")
        self.put(LocalStorage(tmp_path), "link", b"new", write)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "far/second").is_symlink()
        assert (tmp_path / "far/target").read_bytes() == b"new"
        assert sorted(os.listdir(tmp_path / "far")) == ["second", "target"]

    def test_a_link_to_what_is_not_there_yet_makes_it(self, tmp_path: Path, write: str) -> None:
        (tmp_path / "link").symlink_to("target")
        (tmp_path / "folder").symlink_to("real folder")
        store = LocalStorage(tmp_path)
        self.put(store, "link", b"new", write)
        self.put(store, "folder/x", b"in it", write)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"
        assert (tmp_path / "real folder/x").read_bytes() == b"in it"

    def test_links_in_a_circle(self, tmp_path: Path, write: str) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(StorageError, match="symbolic links"):
            self.put(LocalStorage(tmp_path), "a", b"", write)

    @pytest.mark.parametrize("bits", [0o600, 0o640, 0o666, 0o755])
    def test_the_mode_of_a_file_stays_and_a_new_one_has_that_of_the_umask(
        self, tmp_path: Path, write: str, bits: int
    ) -> None:
        (tmp_path / "there").write_bytes(b"old")
        (tmp_path / "there").chmod(bits)
        before = os.umask(0o027)
        try:
            for name in ("there", "new"):
                self.put(LocalStorage(tmp_path), name, b"x", write)
        finally:
            os.umask(before)
        assert mode(tmp_path / "there") == bits
        assert mode(tmp_path / "new") == 0o640

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_the_owner_stays(self, tmp_path: Path, write: str) -> None:
        (tmp_path / "there").write_bytes(b"old")
        os.chown(tmp_path / "there", 12345, 23456)
        self.put(LocalStorage(tmp_path), "there", b"new", write)
        found = (tmp_path / "there").stat()
        assert (found.st_uid, found.st_gid) == (12345, 23456)

    def test_a_fifo_is_written_into(self, tmp_path: Path, write: str) -> None:
        os.mkfifo(tmp_path / "fifo")
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_bytes()))
        reader.start()
        self.put(LocalStorage(tmp_path), "fifo", b"data" * 50_000, write)
        reader.join(20)
        assert read == [b"data" * 50_000]
        assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
        assert os.listdir(tmp_path) == ["fifo"]

    def test_an_open_file_is_written_where_it_stands(self, tmp_path: Path, write: str) -> None:
        """As a shell's ``(echo head; nnjobs ... -o /dev/stdout; echo tail) > file`` expects."""
        with (tmp_path / "file").open("wb", buffering=0) as stream:
            stream.write(b"head ")
            (tmp_path / "link").symlink_to(f"/dev/fd/{stream.fileno()}")
            self.put(LocalStorage("/dev/fd"), str(stream.fileno()), b"body ", write)
            self.put(LocalStorage(tmp_path), "link", b"body ", write)
            stream.write(b"tail")
        assert (tmp_path / "file").read_bytes() == b"head body body tail"

    def test_devices_stay_devices(self, tmp_path: Path, write: str) -> None:
        before = Path("/dev/null").stat().st_rdev
        self.put(LocalStorage("/dev"), "null", b"x", write)
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode) and Path("/dev/null").stat().st_rdev == before
        assert not [name for name in os.listdir("/dev") if name.startswith(".null")]

    def test_what_cannot_be_written(self, tmp_path: Path, write: str) -> None:
        import socket

        (tmp_path / "folder").mkdir()
        with socket.socket(socket.AF_UNIX) as listening:
            here = Path.cwd()
            os.chdir(tmp_path)  # the name of a socket is short
            try:
                listening.bind("socket")
            finally:
                os.chdir(here)
            for name, reason in (("folder", "directory"), ("socket", "a socket")):
                with pytest.raises(StorageError, match=reason):
                    self.put(LocalStorage(tmp_path), name, b"", write)
        assert sorted(os.listdir(tmp_path)) == ["folder", "socket"]


def test_a_stream_says_how_much_was_written(tmp_path: Path) -> None:
    with LocalStorage("/dev").writing("null") as stream:
        stream.write(b"12345")
        assert stream.tell() == 5 and not stream.seekable()
    assert is_stream("/dev/null") and not is_stream(str(tmp_path)) and not is_stream(str(tmp_path / "new"))


@pytest.mark.parametrize("address", ["", " ", "file://", "hdfs://"])
def test_an_empty_address_is_refused(address: str) -> None:
    for use in (storage, file_at, lambda each: refuse_overlap(each, [])):
        with pytest.raises(UsageError, match="is empty"):
            use(address)


@pytest.mark.parametrize("address", [".", "..", "a/..", "a/.", "a/"])
def test_a_directory_is_no_name_of_a_file(address: str) -> None:
    with pytest.raises(UsageError, match="this is a directory"):
        file_at(address)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``in/x.csv`` and ``alone.csv``, and other names of them."""
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/x.csv").write_text("1")
    (tmp_path / "alone.csv").write_text("1")
    (tmp_path / "link.csv").symlink_to("in/x.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "in/x.csv")
    (tmp_path / "same").symlink_to("in")
    (tmp_path / "in/away.csv").symlink_to(tmp_path / "alone.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "source", "expected"),
    [
        ("in/x.csv", "in/x.csv", "is"),
        ("./in/../in//x.csv", "in/x.csv", "is"),
        ("file://{here}/in/x.csv", "in/x.csv", "is"),
        ("{here}/in/x.csv", "file://{here}/in/x.csv", "is"),
        ("link.csv", "in/x.csv", "is"),
        ("in/x.csv", "link.csv", "is"),
        ("hard.csv", "in/x.csv", "is"),
        ("hard.csv", "in", "is"),
        ("alone.csv", "in", "is"),
        ("same/x.csv", "in/x.csv", "is"),
        ("same/", "in", "is"),
        ("in/new.csv", "in", "lies in"),
        ("same/new/deeper.csv", "in", "lies in"),
        ("in/new.csv", "same/", "lies in"),
        (".", "in/x.csv", "holds"),
        ("in", "in/x.csv", "holds"),
        ("same", "link.csv", "holds"),
        ("/", "in", "holds"),
        ("in/y.csv", "in/x.csv", None),
        ("inn", "in", None),
        ("alone.csv", "in/x.csv", None),
        ("new/deep/er", "in", None),
        ("in/nowhere.csv", "in/nowhere.csv", None),
        ("/dev/null", "/dev/null", None),
        ("hdfs://host/in/x.csv", "in/x.csv", None),
    ],
)
def test_outputs_and_inputs(place: Path, output: str, source: str, expected: str | None) -> None:
    output, source = (each.replace("{here}", str(place)) for each in (output, source))
    assert relation(output, source) == expected
    if expected is None:
        refuse_overlap(output, [source])
    else:
        with pytest.raises(UsageError, match=f"-o {expected} .*destroyed"):
            refuse_overlap(output, ["nowhere", source])


@pytest.mark.parametrize(
    ("output", "source", "expected"),
    [
        ("hdfs://host:8020/a/b", "hdfs://host:8020/a/b", "is"),
        ("hdfs://host:8020/a//b/", "webhdfs://host:9870/a/b", "is"),
        ("hdfs://host:8020/a/b/c", "hdfs://host:8020/a/b", "lies in"),
        ("hdfs://host:8020/", "hdfs://host:8020/a/b", "holds"),
        ("hdfs://host:8020/a/bc", "hdfs://host:8020/a/b", None),
        ("hdfs://other:8020/a/b", "hdfs://host:8020/a/b", None),
    ],
)
def test_outputs_and_inputs_in_hdfs(output: str, source: str, expected: str | None) -> None:
    assert relation(output, source) == expected


def test_a_sweep_takes_what_our_writers_left_and_nothing_else(tmp_path: Path) -> None:
    ours = [".part-00000.parquet.0123abcd.tmp", "runs/.log.0123abcd.tmp"]
    others = [".notes.tmp", ".x.0123ABCD.tmp", "runs/.lock.tmp", "x.0123abcd.tmp"]
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    store = LocalStorage(tmp_path)

    def left() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    store.sweep(of=lambda name: name.startswith("part-"))
    assert left() == sorted([ours[1], *others])
    store.sweep()
    assert left() == sorted(others)
