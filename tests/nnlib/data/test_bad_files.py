"""Bad raw files through the command: exit code 3, the file, row and column named, no dataset left; memory bounded.

And names that look like trouble (spaces, quotes, newlines, leading dashes, other scripts), which must simply work.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from product import ROOT
from refusals import Capture, refused

from jobs.__main__ import main
from nnlib.data.dataset import Dataset

MB = 1 << 20


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def import_refused(capsys: Capture, file: str, *says: str, options: tuple[str, ...] = ()) -> None:
    error = refused(capsys, 3, "data", "import", file, "-o", "set", *options, says=(Path(file).name, *says))
    assert not Path("set").exists() and error.startswith("nnjobs: file ")


CSV: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("empty",)),
    "header only": (b"a,b,y\n", ("no rows",)),
    "ragged, short": (b"a,b,y\n1,2,0\n1,0\n", ("row 2", "expected 3 columns, found 2: 1,0")),
    "ragged, long": (b"a,b,y\n1,2,0\n1,2,3,0\n", ("row 2", "expected 3 columns, found 4")),
    "ragged, not UTF-8": (b"a,b,y\n1,2,0\n\xff\xfe\n", ("row 2", "expected 3 columns, found 1")),
    "not UTF-8": (b"a,b,y\n1,2,0\n1,\xe9t\xe9,1\n", ("row 2", "column b", "not UTF-8", "convert")),
    "not UTF-8, label": (b"a,b,y\n1,2,u\n1,3,\xe9\n", ("row 2", "column y", "not UTF-8")),
    "not UTF-8, header": (b"a\xff,b,y\n1,2,0\n", ("not UTF-8",)),
    "UTF-16 without a mark": ("a,b,y\n1,2,0\n".encode("utf-16-le"), ("zero bytes", "--encoding utf-16")),
    "text": (b"a,b,y\n1,2,0\n1,two,1\n", ("row 2", "column b", "'two' is not a number", "--categorical")),
    "true among numbers": (b"a,b,y\n1,0,0\n1, true,1\n", ("row 2", "column b", "is not a number", "--categorical")),
    "not a number": (b"a,b,y\n1,2,0\n1,nan,1\n", ("row 2", "column b", "missing", "--nulls mean")),
    "infinite": (b"a,b,y\n1,2,0\n1,-inf,1\n", ("row 2", "column b", "not a finite number")),
    "no label": (b"a,b,y\n1,2,0\n1,2,\n", ("row 2", "column y", "label is missing")),
    "one class": (b"a,b,y\n1,2,0\n1,3,0\n", ("column y", "same label '0'", "nothing can be learned")),
    "a column twice": (b"a,a,y\n1,2,0\n", ("'a' twice", "--no-header")),
    "another delimiter": (b"a;b;y\n1;2;0\n", ("--delimiter ';'",)),
    "an open quote": (b'a,b,y\n1,2,0\n1,"2,1\n1,2,0\n', ("row 2",)),
    "zeros": (b"a,b,y\n1,2,0\n\0\0\0\0,2,1\n", ("row 2", "column a")),
}


@pytest.mark.parametrize("name", CSV)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_bad_csv(name: str, packed: bool, capsys: Capture) -> None:
    content, says = CSV[name]
    file = "bad.csv.gz" if packed else "bad.csv"
    Path(file).write_bytes(gzip.compress(content) if packed else content)
    import_refused(capsys, file, *says, options=("--label", "-1"))


GOOD_CSV = {
    "a byte order mark": b"\xef\xbb\xbfa,b,y\n1,2,0\n3,4,1\n",
    "quoted newlines": b'a,b,y\n1,2,"u\nv"\n3,4,"w, ""x"""\n',
    "UTF-16": "a,b,y\n1,2,0\n3,4,1\n".encode("utf-16"),
    "carriage returns alone": b"a,b,y\r1,2,0\r3,4,1\r",
    "carriage returns": b"a,b,y\r\n1,2,0\r\n3,4,1\r\n",
    "no last newline": b"a,b,y\n1,2,0\n3,4,1",
    "empty lines": b"\n\na,b,y\n1,2,0\n\n3,4,1\n\n",
    "spaces": b"a, b ,y\n 1,2 , 0\n3, 4,1\n",
}


@pytest.mark.parametrize("name", GOOD_CSV)
def test_odd_csv_that_is_fine(name: str) -> None:
    Path("odd.csv").write_bytes(GOOD_CSV[name])
    assert main(["data", "import", "odd.csv", "-o", "set", "--label", "y"]) == 0
    x = pq.read_table("set/part-00000.parquet").sort_by("row").column("x").to_pylist()
    assert x == [[1, 2], [3, 4]]
    assert Dataset.open("set").encoding.feature_names == ["a", "b"]


def npy(dtype: str, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


class Trap:
    """Unpickling it leaves a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Trap(), 1], object), allow_pickle=True)
    return stream.getvalue()


LABELS = npy("|u1", (2,), b"\0\1")
IMAGES = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 2, 2)
BINARY: dict[str, tuple[str, Callable[[], bytes], tuple[str, ...]]] = {
    "a pickle in .npy": ("a.npy", _pickled, ("never unpickled",)),
    "a pickle in .npz": ("a.npz", lambda: npz(X=_pickled(), y=LABELS), ("column X", "never unpickled")),
    "a bare pickle": ("a.npy", lambda: pickle.dumps(Trap()), ("not a readable NumPy file",)),
    "a shape that lies": ("a.npz", lambda: npz(X=npy("<f4", (2**40, 784)), y=LABELS), ("promises",)),
    "a shape that lies, .npy": ("a.npy", lambda: npy("<f4", (2**40, 784)), ("promises",)),
    "a negative shape": ("a.npy", lambda: npy("<f4", (-2, 3)), ("shape (-2, 3)",)),
    "a header that lies": ("a.npy", lambda: b"\x93NUMPY\2\0\xff\xff\xff\xff{}", ("4294967295 bytes",)),
    "wide rows": ("a.npz", lambda: npz(X=npy("|u1", (2, 2 * MB), bytes(4 * MB)), y=LABELS), ("1 to 1,048,576",)),
    "labels of a megabyte": ("a.npz", lambda: npz(X=LABELS, y=npy("|S1048576", (2,), bytes(2 * MB))), ("no labels",)),
    "a damaged .npz": ("a.npz", lambda: npz(X=LABELS, y=LABELS)[:-30], ("a.npz",)),
    "no .mat": ("a.mat", lambda: b"MATLAB 5.0 MAT-file".ljust(200), (".mat",)),
    "a .mat that ends": ("a.mat", lambda: b"MATLAB".ljust(124) + b"\0\1IM" + struct.pack("<2I", 14, 99), ("99 bytes",)),
    "IDX with a lying header": ("a-images-idx3-ubyte", lambda: IMAGES[:4] + b"\xff" * 12, ("promises",)),
    "IDX that ends": ("a-images-idx3-ubyte", lambda: IMAGES + bytes(7), ("promises", "the file has 23")),
    "gzipped IDX that ends": ("a-images-idx3-ubyte.gz", lambda: gzip.compress(IMAGES + bytes(7)), ("ends before",)),
    "gzipped IDX that goes on": ("a-images-idx3-ubyte.gz", lambda: gzip.compress(IMAGES + bytes(9)), ("goes on",)),
    "gzip that is none": ("a-images-idx3-ubyte.gz", lambda: b"\x1f\x8b\x08" + bytes(40), ("not",)),
    "no Parquet": ("a.parquet", lambda: b"PAR1" + bytes(50) + b"PAR1", ("not a readable Parquet file",)),
    "of no known format": ("a.xyz", lambda: b"what is it", ("--format",)),
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
def test_hostile_binary_files(name: str, capsys: Capture) -> None:
    file, content, says = BINARY[name]
    Path(file).write_bytes(content())
    Path("a-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
    import_refused(capsys, file, *says, options=("--label", "-1") if file.endswith((".npy", ".parquet")) else ())
    assert not Path("unpickled").exists()


PARQUET: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nulls": ({"a": [1.0, None], "y": [0, 1]}, ("row 2", "column a", "missing", "--nulls mean")),
    "null labels": ({"a": [1.0, 2.0], "y": [0, None]}, ("row 2", "column y", "label is missing")),
    "not a number": ({"a": [1.0, float("nan")], "y": [0, 1]}, ("row 2", "column a")),
    "maps": ({"a": pa.array([[("k", 1)]] * 2, pa.map_("string", pa.int64())), "y": [0, 1]}, ("a", "map", "--features")),
    "lists of structs": ({"a": [[{"b": 1}], [{"b": 2}]], "y": [0, 1]}, ("column a", "struct", "--features")),
    "text in a struct": ({"a": [{"b": "1"}, {"b": "two"}], "y": [0, 1]}, ("row 2", "column a.b", "'two'")),
    "lists of other lengths": ({"a": [[1.0, 2.0], [3.0]], "y": [0, 1]}, ("row 2", "column a", "expected 2 values")),
    "nested lists, ragged": ({"a": [[[1, 2]], [[3]]], "y": [0, 1]}, ("row 2", "column a", "expected 2 values")),
    "lists of nothing": ({"a": [[], []], "y": [0, 1]}, ("column a", "a row has 0 numbers")),
    "bytes": ({"a": [b"1", b"x"], "y": [0, 1]}, ("row 2", "column a", "'x' is not a number", "--features")),
    "bytes that are no text": ({"a": [b"1", b"\xff"], "y": [0, 1]}, ("row 2", "column a", "not UTF-8")),
    "text": ({"a": ["1", "two"], "y": [0, 1]}, ("row 2", "column a", "'two'")),
    "no rows": ({"a": pa.array([], pa.float64()), "y": pa.array([], pa.int64())}, ("no rows",)),
}


@pytest.mark.parametrize("name", PARQUET)
def test_bad_parquet(name: str, capsys: Capture) -> None:
    columns, says = PARQUET[name]
    pq.write_table(pa.table(columns), "bad.parquet")
    import_refused(capsys, "bad.parquet", *says, options=("--label", "y"))


GOOD_PARQUET: dict[str, tuple[pa.Array, list[list[float]]]] = {
    "structs": (pa.array([{"b": 1, "c": {"d": 2}}, {"b": 3, "c": {"d": 4}}]), [[1, 2], [3, 4]]),
    "lists of lists": (pa.array([[[1.0, 2.0]], [[3.0, 4.0]]]), [[1, 2], [3, 4]]),
    "bytes that are numbers": (pa.array([b"1", b" 2.5"]), [[1], [2.5]]),
    "timestamps": (pa.array([0, 1_500], pa.timestamp("ms")), [[0], [1.5]]),
    "dates": (pa.array([-1, 1], pa.date32()), [[-86_400], [86_400]]),
    "decimals": (pa.array([1, 2]).cast(pa.decimal128(30, 2)), [[1], [2]]),
    "dictionaries of text": (pa.array(["2", "1"]).dictionary_encode(), [[2], [1]]),
}


@pytest.mark.parametrize("name", GOOD_PARQUET)
def test_odd_parquet_that_is_fine(name: str) -> None:
    column, rows = GOOD_PARQUET[name]
    pq.write_table(pa.table({"a": column, "y": [0, 1]}), "odd.parquet")
    assert main(["data", "import", "odd.parquet", "-o", "set", "--label", "y"]) == 0
    assert pq.read_table("set/part-00000.parquet").sort_by("row").column("x").to_pylist() == rows


def test_parquet_with_a_column_twice_or_broken_text(capsys: Capture) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1, 2])] * 3, ["a", "a", "y"]), "bad.parquet")
    import_refused(capsys, "bad.parquet", "column a", "twice", options=("--label", "y"))
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"]).buffers())
    pq.write_table(pa.table({"a": [1, 2], "y": broken}), "bad.parquet")
    import_refused(capsys, "bad.parquet", "row 2", "column y", "not UTF-8", options=("--label", "y"))


# Names that look like trouble.
NAMES = ["a b", "it's \"q\"", "new\nline", "donn\u00e9es \u6570\u636e \u202e", "-dash", "--json", "a=b; c", "#h: {x}",
         "%s $HOME `id` &", "back\\slash", "*?[x]", "at@1", "~", ".hidden", "tab\there", "\x01\x1b[31m"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_look_like_trouble_work(name: str, capsys: Capture) -> None:
    """As a file, a dataset, a run, a column and a class: import, check, train, predict, go on."""
    data, run = f"./{name}", name  # a bare ~ is the home directory, as everywhere
    if name == "~":
        run = "./~"
    with Path(f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["p", name, "label"])
        writer.writerows([[row % 2 + 0.5, -row % 3, (name, "other")[row % 2]] for row in range(40)])
    assert main(["data", "import", "--label", "label", "--shards", "2", "-o", data, "--", f"{name}.csv"]) == 0
    assert Dataset.open(data).classes == tuple(sorted((name, "other")))
    assert Dataset.open(data).encoding.feature_names == ["p", name]
    assert main(["data", "verify", "--", data]) == 0
    Path("c.yaml").write_text(
        "name: odd\nworkers: 2\nmodel: {hidden: [3]}\ntrain: {epochs: 1, epochs_per_round: 1, class_weights: "
        + json.dumps({name: 2.0}) + "}\ndata: {path: " + json.dumps(data) + "}\n"
    )  # fmt: skip
    capsys.readouterr()
    train = ["train", "--run-dir", f"{run}-run", "--json"]
    assert main([*train, "c.yaml"]) == 0
    captured = capsys.readouterr()
    assert Path(json.loads(captured.out)["run_dir"]).name == f"{name}-run"
    assert "\x1b" not in captured.err and "\u202e" not in captured.err  # a name must not write to the terminal
    assert main([*train, "--resume", "--set", "train.epochs=2"]) == 0
    assert main(["train", "c.yaml", "--run-dir", "next", "--from", f"{run}-run"]) == 0
    assert main(["predict", "-o", f"{run}.parquet", "--", f"{run}-run", f"{name}.csv"]) == 0
    assert set(pq.read_table(f"./{name}.parquet").column("class").to_pylist()) <= {name, "other"}


def test_names_with_commas_are_quoted() -> None:
    Path("a.csv").write_text('"p, q","r ""s""",y\n1,2,0\n3,4,1\n')
    assert main(["data", "import", "a.csv", "-o", "d", "--label", "y", "--features", '"r ""s""","p, q"']) == 0
    assert Dataset.open("d").encoding.feature_names == ['r "s"', "p, q"]


def test_odd_names_in_local_tasks() -> None:
    name = "a b 'c'\n-\u00e9 #$x"
    assert main(["data", "synth", "--kind", "blobs", "--rows", "60", "--shards", "2", "-o", name]) == 0
    Path("c.yaml").write_text("workers: 2\ntrain: {epochs: 1}\ndata: {path: " + json.dumps(name) + "}\n")
    assert main(["train", "c.yaml", "-r", "local", "--run-dir", f"run {name}"]) == 0


# Files that would fill the memory of a careless reader; the whole gigabyte only with --full.
SIZES = [pytest.param(50, id="50 MB"), pytest.param(1024, id="1 GB", marks=pytest.mark.full)]
MOST_MB = 400
"""Of a process that imports; numpy and Arrow alone take about 80."""


def _repeated(file: str, size: int, head: bytes, block: bytes, tail: bytes = b"") -> None:
    with gzip.open(file, "wb", compresslevel=1) if file.endswith(".gz") else Path(file).open("wb") as stream:
        stream.write(head)
        for _ in range(size):
            stream.write(block)
        stream.write(tail)


def _images(size: int) -> None:
    Path("a-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
    _repeated("a-images-idx3-ubyte.gz", size, bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 2, 2) + bytes(8), bytes(MB))


def _wide_images(size: int) -> None:
    Path("a-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 0]))
    _repeated("a-images-idx3-ubyte.gz", size, bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 1024, size << 10), bytes(MB))


def _npz_bomb(size: int) -> None:
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("y.npy", npy("|u1", (size << 10,), bytes(size << 10)))
        with archive.open("X.npy", "w", force_zip64=True) as stream:
            stream.write(npy("|u1", (size << 10, 1024)))
            for _ in range(size):
                stream.write(bytes(MB))


ROWS = b"a,b,y\n" + b"1,2,0\n" * 1000
LONG: dict[str, tuple[str, Callable[[int], object], str]] = {
    "first line": ("a.csv", lambda size: _repeated("a.csv", size, b"a,b,", b"1" * MB), "a.csv"),
    "first line of columns": ("a.csv", lambda size: _repeated("a.csv", size, b"a,b,", b"1," * (MB // 2)), "first line"),
    "later line": ("a.csv", lambda size: _repeated("a.csv", size, ROWS + b"1,", b"1" * MB, b",1\n"), "a row after row"),
    "quoted value": ("a.csv", lambda size: _repeated("a.csv", size, ROWS + b'1,"', b"\n" * MB), "a row after row"),
    "label": ("a.csv", lambda size: _repeated("a.csv", size, ROWS + b"1,2,", b"y" * MB), "a row after row"),
    "gzip bomb": ("a.csv.gz", lambda size: _repeated("a.csv.gz", size, ROWS, bytes(MB)), "a row after row"),
    "gzipped IDX that goes on": ("a-images-idx3-ubyte.gz", _images, "goes on after"),
    "gzipped IDX of one row": ("a-images-idx3-ubyte.gz", _wide_images, "it may have 1 to"),
    "zip bomb": ("a.npz", _npz_bomb, "same label"),
}  # fmt: skip
MEASURED = """
import resource, sys
from pathlib import Path
from jobs.__main__ import main
code = main(sys.argv[1:])
if sys.platform == "linux":  # getrusage counts what this process was before it became another program, too
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20)
sys.exit(code)
"""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LONG)
def test_memory_is_bounded_whatever_a_file_holds(name: str, size: int, tmp_path: Path) -> None:
    file, make, reason = LONG[name]
    make(size)
    label = ["--label", "-1"] if ".csv" in file else []
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "data", "import", file, "-o", "set", *label],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert reason in done.stderr and file in done.stderr and "Traceback" not in done.stderr
    assert int(done.stdout) < MOST_MB, f"took {done.stdout.strip()} MB"
    assert not list(tmp_path.glob("set*")) and not list(tmp_path.glob(".nnjobs*"))
    shutil.rmtree(tmp_path)  # pytest keeps the last folders: not these
