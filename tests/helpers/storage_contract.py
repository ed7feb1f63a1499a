"""What every kind of storage must do."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage import Storage
from nnlib.storage.output_folder import MARKER, NOTHING, FolderContent, claimed_folder, delete_content

NAMES = [
    "plain.txt",
    "with space.txt",
    "-rf",
    "--option=1",
    "Größe-数据-😀",
    "100%25#a?b&c=d",
    "a'b\"c\\d",
    "deep/er/than this/x",
    "{brace}[1]*",
]


class StorageContract(ABC):
    """Every backend's test class inherits these and gives an empty ``store``."""

    has_directories = True
    """Whether a file and a directory cannot have the same name."""

    @pytest.fixture
    @abstractmethod
    def store(self, tmp_path: Path) -> Storage: ...

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000], ids=["empty", "byte", "large"])
    def test_reads_what_was_written(self, store: Storage, name: str, data: bytes) -> None:
        assert not store.exists(name)
        store.write(name, data)
        assert store.exists(name)
        assert store.size(name) == len(data)
        assert store.read(name) == data
        with store.open(name) as stream:
            assert stream.read() == data
            stream.seek(len(data) // 2)
            assert stream.read() == data[len(data) // 2 :]
        folder, _, last = name.rpartition("/")
        assert store.names(folder) == [last]
        store.write(name, b"new")
        assert store.read(name) == b"new"
        store.delete(name)
        assert not store.exists(name)
        assert store.names(folder) == []

    def test_several_files_are_written_in_their_order(self, store: Storage) -> None:
        store.write("a/x", b"old")
        store.write_all({"b/2": b"2", "a/x": b"new", "b/1": b""})
        assert {name: store.read(name) for name in ("a/x", "b/1", "b/2")} == {"a/x": b"new", "b/1": b"", "b/2": b"2"}
        refused = "a/x/below" if self.has_directories else "long" * 300
        with pytest.raises(StorageError):
            store.write_all({"c/first": b"1", refused: b"2", "c/last": b"3"})
        assert store.read("c/first") == b"1"
        assert not store.exists("c/last")

    def test_names_are_sorted_and_of_one_level(self, store: Storage) -> None:
        for name in ("b", "a/2", "a/10", "a/1/x", "c"):
            store.write(name, b"")
        assert store.names() == ["a", "b", "c"]
        assert store.names("a") == ["1", "10", "2"]
        assert store.names("nowhere") == store.names("nowhere/else") == store.names("b") == []

    def test_what_is_not_there(self, store: Storage) -> None:
        for read in (store.read, store.open, store.size):
            for name in ("none", "no/ne"):
                with pytest.raises(StorageError, match="no such file") as caught:
                    read(name)
                assert name in caught.value.where["file"]
        assert not store.exists("none") and not store.exists("no/ne")
        store.delete("none")

    def test_delete_takes_a_tree(self, store: Storage) -> None:
        for name in ("a/b/c", "a/d", "ab"):
            store.write(name, b"")
        store.delete("a")
        assert store.names() == ["ab"]
        assert not store.exists("a/b/c")

    def test_create_does_not_overwrite(self, store: Storage) -> None:
        assert store.create("new/manifest", b"first") is True
        assert store.create("new/manifest", b"second") is False
        assert store.read("new/manifest") == b"first"
        assert store.names("new") == ["manifest"]
        store.write("new/other", b"x")
        assert store.create("new/other", b"y") is False

    def test_exactly_one_creator_wins(self, store: Storage) -> None:
        for attempt in range(20):
            gate = threading.Barrier(8)

            def create(worker: int, name: str = f"race-{attempt}/m", gate: threading.Barrier = gate) -> bool:
                gate.wait()
                return store.create(name, b"%d" % worker * 10_000)

            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(create, range(8)))
            assert won.count(True) == 1
            assert store.read(f"race-{attempt}/m") == b"%d" % won.index(True) * 10_000
            assert store.names(f"race-{attempt}") == ["m"]

    def test_readers_see_a_whole_file(self, store: Storage) -> None:
        contents = [bytes([byte]) * 300_000 for byte in (1, 2)]
        store.write("file", contents[0])
        done = threading.Event()

        def write() -> None:
            try:
                for turn in range(60):
                    store.write("file", contents[turn % 2])
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            while not done.is_set():
                assert store.read("file") in contents
            writer.result()

    def test_a_stream_becomes_the_file_at_its_end(self, store: Storage) -> None:
        store.write("out", b"old")
        with store.writing("out") as stream:
            for part in (b"one ", b"two ", b"three"):
                stream.write(part)
            assert store.read("out") == b"old"
        assert store.read("out") == b"one two three"

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
    def test_a_failing_block_leaves_the_old_file(self, store: Storage, error: type[BaseException]) -> None:
        store.write("folder/out", b"old")
        for name in ("folder/out", "folder/new"):
            with pytest.raises(error), store.writing(name) as stream:
                stream.write(b"half")
                raise error
        assert store.names("folder") == ["out"]
        assert store.read("folder/out") == b"old"

    def test_a_file_is_no_directory(self, store: Storage) -> None:
        if not self.has_directories:
            pytest.skip("this storage has none")
        store.write("file", b"x")
        for write in (store.write, store.create):
            with pytest.raises(StorageError):
                write("file/below", b"y")
        assert store.names() == ["file"]
        assert store.read("file") == b"x"

    def test_a_claimed_folder_is_one_commands_and_keeps_what_others_made(self, store: Storage) -> None:
        content = FolderContent.of("manifest", parts=2)
        second = claimed_folder(store, content)
        with (
            claimed_folder(store, content),
            pytest.raises(StorageError, match="another nnjobs is writing here"),
            second,
        ):
            pass
        assert store.names() == []
        store.write("part-00001.parquet", b"theirs")
        store.write("part-00002.parquet", b"theirs")
        with pytest.raises(UsageError, match="nnjobs has not made it") as caught, claimed_folder(store, content):
            pass
        assert caught.value.where["file"].endswith("part-00001.parquet")
        with claimed_folder(store, content, lambda: content) as left:
            assert left == NOTHING
            store.write("part-00000.parquet", b"ours")
            assert [name for name in store.names() if name.startswith(MARKER)]
        assert store.names() == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]

    def test_what_a_killed_command_claimed_is_ours(self, store: Storage) -> None:
        content = FolderContent.of("manifest", parts=2)
        with claimed_folder(store, content):
            (mark,) = store.names()
            record = json.loads(store.read(mark))
        store.write(mark, json.dumps(record | {"process": 999_999_999, "started": None}).encode())
        store.write("part-00001.parquet", b"half a dataset")
        with claimed_folder(store, FolderContent.of("manifest", parts=1)) as left:
            assert left == content
            delete_content(store, left)
        assert store.names() == []
