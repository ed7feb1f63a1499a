"""What is fuzzed: one function of bytes a target, and the small real inputs that mutations start from.

A target returns for good input and raises a typed error (`nnlib.core.errors`) for bad input; any other exception is a
find. What it returned from is checked too: an import verifies, a line encodes back, a configuration renders back. Where
a format carries a checksum or is compressed, the target puts that right, so that mutations reach what lies below."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse

from jobs.mapreduce.wire import SliceKey, _checksum, decode_partial, encode_partial
from jobs.runners.lines import decode_record, encode_record
from nnlib.aggregation.average import Partial
from nnlib.config.load import parse_config
from nnlib.config.render import from_resolved, to_yaml
from nnlib.config.schema import Config
from nnlib.core.entries import parameter
from nnlib.core.errors import NnjobsError
from nnlib.core.layout import Layout
from nnlib.core.notes import listening
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.dataset_check import verify
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.scaling import Scaler
from nnlib.data.shard_reader import _VERIFIED, ShardReader
from nnlib.data.split.rule import TEST, TRAIN, SplitRule, Stratum
from nnlib.run.directory import SPEC, RunDirectory
from nnlib.run.ledger import canonical
from nnlib.run.model_file import pack, read_model, unpack
from nnlib.run.spec import JobSpec, Trial

X = np.linspace(-2.0, 2.0, 24, dtype=np.float32).reshape(8, 3)
Y = np.array([0, 1, 2, 1, 0, 2, 1, 0])
PIXELS = np.arange(48, dtype=np.uint8).reshape(8, 2, 3)


@dataclass(frozen=True)
class Target:
    """``run`` takes one input, ``seeds`` gives the inputs to start from."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def check(target: Target, data: bytes) -> bool:
    """Whether the input was accepted; False if a typed error refused it. Anything else escapes."""
    try:
        with listening(lambda text: None):
            target.run(data)
    except NnjobsError as error:
        str(error), json.dumps(error.to_record())  # it must be possible to tell it, and to send it from a task
        return False
    return True


class _Importer:
    """Imports the input as a file; a refused import must leave nothing, a good one must verify."""

    def __init__(self, name: str, wrap: Callable[[bytes], bytes] = bytes, **options: Any) -> None:
        self.name, self.wrap = name, wrap
        self.options = ImportOptions(shards=2, row_group_rows=4, **options)

    def __call__(self, data: bytes) -> None:
        folder = Path(tempfile.mkdtemp(prefix="nnjobs-fuzz-"))
        try:
            (folder / self.name).write_bytes(self.wrap(data))
            self._beside(folder)
            before = sorted(path.name for path in folder.iterdir())
            try:
                dataset = import_dataset([str(folder / self.name)], str(folder / "out"), self.options)
            except NnjobsError:
                left = sorted(path.name for path in folder.rglob("*"))
                assert [name for name in left if name != "out"] == before, f"left behind: {left}"
                raise
            problems = verify(Dataset.open(str(folder / "out")))
            assert not problems, [str(problem) for problem in problems]
            assert dataset.rows > 0
        finally:
            shutil.rmtree(folder)

    def _beside(self, folder: Path) -> None:
        """Files that the format wants beside the fuzzed one."""


class _Images(_Importer):
    def _beside(self, folder: Path) -> None:
        (folder / self.name.replace("images-idx3", "labels-idx1")).write_bytes(idx(Y.astype(np.uint8)))


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """Unsigned bytes as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _csv_seeds() -> list[bytes]:
    rows = [f"{a:.3f},{b},{c:e},{'abc'[y]}" for (a, b, c), y in zip(X.tolist(), Y, strict=True)]
    return [
        ("a,b,c,y\n" + "\n".join(rows) + "\n").encode(),
        ("\ufeffa,b,c,y\r\n" + "\r\n".join(rows)).encode(),
        b'a,"b ""q""\n",c,y\n1,2,"3","x\ny"\n4, 5 ,6,"x,y"\n',
        b"y,a\n0,1\n1,nan\n0,inf\n1,\n0,?\n",
        b"a;y\n1;2\n",
        gzip.compress(b"a,y\n1,2\n3,4\n", mtime=0),
    ]


def _npy(array: Any, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=version, allow_pickle=True)
    return stream.getvalue()


def _npy_seeds() -> list[bytes]:
    table = np.column_stack([X, Y])
    objects = np.array([[{}, 1], [2, 3]], dtype=object)
    return [
        _npy(table),
        _npy(np.asfortranarray(table), (2, 0)),
        _npy(PIXELS.reshape(8, 6)),
        _npy(table.astype(">f8")),
        _npy(objects),
        _npy(table.astype("c8")),
        _npy(np.zeros((0, 3))),
    ]


def zipped(data: bytes) -> bytes:
    """Sound archives around the fuzzed bytes: the first byte says how, the rest is cut into members X and y.

    An odd first byte leaves the bytes as they are, to fuzz the archive itself.
    """
    if not data or data[0] & 1:
        return data[1:]
    size = int.from_bytes(data[1:3], "little")
    method = zipfile.ZIP_DEFLATED if data[0] & 2 else zipfile.ZIP_STORED
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, part in (("X.npy", data[3 : 3 + size]), ("y.npy", data[3 + size :])):
            archive.writestr(zipfile.ZipInfo(name), part, method)
    return stream.getvalue()


def _npz_seeds() -> list[bytes]:
    seeds = []
    for how, x in ((0, X), (2, np.asfortranarray(X)), (0, PIXELS), (0, X.astype(">f8"))):
        first = _npy(x)
        seeds.append(bytes([how]) + len(first).to_bytes(2, "little") + first + _npy(Y))
    seeds += [b"\1" + zipped(seed) for seed in seeds[:2]]
    stream = io.BytesIO()
    np.savez(stream, X=np.array([{}], object), y=Y[:1])
    return [*seeds, b"\1" + stream.getvalue()]


def _mat_seeds() -> list[bytes]:
    from scipy.io import savemat

    seeds = []
    for options in ({"do_compression": False}, {"format": "4"}, {"do_compression": True}):
        for content in ({"X": X, "y": Y}, {"X": PIXELS.reshape(8, 6), "y": Y.astype(np.uint8)}):
            stream = io.BytesIO()
            savemat(stream, content, **options)
            seeds.append(stream.getvalue())
    stream = io.BytesIO()
    savemat(stream, {"X": X, "y": np.array(["a", 1], object), "s": {"field": 1}})
    sparse, nested = io.BytesIO(), io.BytesIO()
    savemat(sparse, {"X": scipy.sparse.csc_array(X), "y": np.array(["a", "bc", "d"])[Y]})
    savemat(nested, {"s": {"X": X.T, "y": np.array(["a", "bc", "d"], object)[Y]}}, do_compression=True)
    return [*seeds, stream.getvalue(), sparse.getvalue(), nested.getvalue()]


def _idx_seeds() -> list[bytes]:
    floats = bytes([0, 0, 13, 2]) + struct.pack(">2I", *X.shape) + X.astype(">f4").tobytes()
    return [idx(PIXELS), floats, gzip.compress(idx(PIXELS), mtime=0)]


def _parquet_seeds() -> list[bytes]:
    tables = [
        pa.table({"a": X[:, 0], "b": pa.array([1, None, 3, 4, 5, 6, 7, 8]), "y": Y}),
        pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 3), "y": Y.astype(np.int32)}),
        pa.table({"x": X.tolist(), "y": [*"abcabcab"]}),
        pa.table({"a": pa.array([{"p": 1}] * 8), "b": pa.array([b"x"] * 8), "y": Y}),
        pa.table({"a": pa.array([*"uvuvuvuv"]).dictionary_encode(), "y": pa.array(Y, pa.float64())}),
    ]
    seeds = []
    for compression in ("none", "zstd"):
        for table in tables:
            stream = io.BytesIO()
            pq.write_table(table, stream, compression=compression, row_group_size=5)
            seeds.append(stream.getvalue())
    return seeds


def _arrow_seeds() -> list[bytes]:
    nested = pa.array([[[1.0, 2.0], [3.0, 4.0]]] * 8)
    tables = [
        pa.table({"a": X[:, 0], "b": pa.array([1, None, 3, 4, 5, 6, 7, 8]), "y": Y}),
        pa.table({"x": nested, "s": pa.array([{"p": 1}] * 8), "y": pa.array([*"uvuvuvuv"]).dictionary_encode()}),
        pa.table({"a": pa.array(range(8), pa.date32()), "b": pa.array(["1"] * 8, pa.string_view()), "y": Y}),
    ]
    seeds = []
    for table in tables:
        stream = io.BytesIO()
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
        seeds.append(stream.getvalue())
    return seeds


def _svmlight_seeds() -> list[bytes]:
    rows = [f"{y} " + " ".join(f"{i}:{v!r}" for i, v in enumerate(x, 1)) for x, y in zip(X.tolist(), Y, strict=True)]
    return [
        "\n".join(rows).encode(),
        b"# by hand\r\n+1 qid:3 0:1 4:2.5e3\r\n-1 qid:4 1:1 # two\r\n",
        b"a 1:1\nb 3:1 2:2\n",
        b"1,2 1:1\n",
        gzip.compress(b"1 1:1\n2 2:2\n", mtime=0),
    ]


def _sparse_seeds() -> list[bytes]:
    seeds = []
    for make in (scipy.sparse.csr_array, scipy.sparse.csc_array, scipy.sparse.coo_array):
        stream = io.BytesIO()
        scipy.sparse.save_npz(stream, make(np.column_stack([np.where(X > 0, X, 0), Y])), compressed=False)
        plain = io.BytesIO()  # numpy's archives lack sizes where `resealed` looks
        with zipfile.ZipFile(stream) as before, zipfile.ZipFile(plain, "w") as archive:
            for name in before.namelist():
                archive.writestr(zipfile.ZipInfo(name), before.read(name))
        seeds.append(plain.getvalue())
    return seeds


def resealed(data: bytes) -> bytes:
    """An uncompressed zip archive whose members have the checksums of what they hold."""
    content, at = bytearray(data), 0
    sums: list[bytes] = []
    while (at := data.find(b"PK\3\4", at)) >= 0 and at + 30 <= len(data):
        size, name, extra = (
            *struct.unpack("<I", data[at + 18 : at + 22]),
            *struct.unpack("<2H", data[at + 26 : at + 30]),
        )
        start = at + 30 + name + extra
        sums.append(struct.pack("<I", zlib.crc32(data[start : start + size])))
        content[at + 14 : at + 18] = sums[-1]
        at += 4
    at = 0
    for each in sums:
        if (at := data.find(b"PK\1\2", at)) < 0:
            break
        content[at + 16 : at + 20] = each
        at += 4
    return bytes(content)


def _wire(data: bytes) -> None:
    """Key and value of a line; the first byte's bits say what to read it as and whether to sign it anew."""
    kind, line = data[:1] or b"\0", data[1:]
    key, _, value = line.partition(b"\t")
    if kind[0] & 1:
        worker, record = decode_record(value)
        if worker >= 0:
            assert encode_record(*decode_record(encode_record(worker, record))) == encode_record(worker, record)
        return
    if kind[0] & 4:
        SliceKey.decode(key)
    fields = value.split(b"\t")
    if kind[0] & 2 and len(fields) == 6:
        fields[4] = _checksum(key, b"\t".join(fields[:4]), fields[5])
        value = b"\t".join(fields)
    partial = decode_partial(key, value)
    again = decode_partial(key, encode_partial(key, partial))
    assert again.weights.tobytes() == partial.weights.tobytes() and again.worker == partial.worker


def _wire_seeds() -> list[bytes]:
    key = SliceKey(0, 1).encode()
    lines = []
    for weights in (X.reshape(-1), X.reshape(-1).astype(np.float64), X[:0, 0]):
        value = encode_partial(key, Partial(3, 17, weights, "0123456789abcdef"))
        lines += [how + key + b"\t" + value for how in (b"\0", b"\2", b"\6")]
    record = {"losses": [0.5, 1e-300], "seconds": {"read": 0.1}, "numerics": "ab", "diverged": None}
    return [*lines, b"\1" + key + b"\t" + encode_record(2, record), b"\1\t00000000\t{}"]


def _config(data: bytes) -> None:
    """A YAML text, then overrides, cut at NUL bytes; what is accepted must render to text that reads back equal."""
    text, *overrides = data.decode("utf-8", "surrogateescape").split("\0")
    config = parse_config(text, "fuzz.yaml", overrides)
    assert from_resolved(to_yaml(config), "rendered.yaml") == config


def _config_seeds() -> list[bytes]:
    root = Path(__file__).parents[2] / "configs"
    shipped = [path.read_bytes() for path in sorted(root.glob("*.yaml"))]
    return [
        *shipped,
        b"data: {path: d}\0train.lr=1e-3\0model.hidden=[3, 4]\0seed=7",
        b"data: {path: d}\ntrain: {class_weights: {a: 1.5, '1': 2}, stop: {patience: 3}}\nsplit: {validation: .1}",
        b"data: &a {path: d}\nsplit: *a\n",
        b"!!python/object/apply:os.system ['true']",
        b"data: {path: d}\nworkers: -1\ntrain: {lr: .nan, epochs: 1e3}\nmodle: {}\n",
        b"data: {path: 'a\\nb'}\nname: \xc3\xa9\n",
    ]


LAYOUT = Layout.build(
    [parameter("layer0.weight", (3, 2), decays=True), parameter("layer0.bias", (2,), decays=False)], "float32"
)


def _safetensors(data: bytes) -> None:
    """A model file. An even first byte: the header's length is put right, so that mutations reach the header."""
    how, data = data[:1], data[1:]
    if how and not how[0] & 1 and b"}" in data:
        end = data.rindex(b"}", 0, 400) + 1 if b"}" in data[:400] else 0
        data = struct.pack("<Q", end) + data
    arrays = unpack(data, "fuzz.safetensors")
    assert {name: value.tobytes() for name, value in unpack(pack(arrays), "again").items()} == {
        name: value.tobytes() for name, value in arrays.items()
    }
    read_model(0, arrays, LAYOUT, "fuzz.safetensors")


def _safetensors_seeds() -> list[bytes]:
    flat = np.arange(8, dtype=np.float32)
    views = LAYOUT.views(flat)
    files = [
        pack({f"0.{name}": array for name, array in views.items()}),
        pack({"0.outer": np.zeros(3), "i": np.arange(3), "e": np.zeros((0, 4), np.float32)}),
        struct.pack("<Q", 64) + b'{"0.layer0.weight":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}',
        struct.pack("<Q", 2**62) + b"{}",
    ]
    return [b"\1" + file for file in files] + [b"\0" + file[8:] for file in files]


def _dataset() -> tuple[Path, bytes, bytes]:
    """A sound dataset of one shard: where it is, its manifest, its shard."""
    folder = Path(tempfile.mkdtemp(prefix="nnjobs-fuzz-"))
    table = pa.table({"x": X.tolist(), "y": Y, "who": [*"abcdefgh"], "id": Y})
    options = ImportOptions(label="y", features=("x",), keep=("who", "id"), row_group_rows=4)
    with tempfile.TemporaryDirectory(prefix="nnjobs-fuzz-") as sources:  # an output must not hold its input
        pq.write_table(table, f"{sources}/source.parquet")
        import_dataset([f"{sources}/source.parquet"], str(folder), options)
    return folder, (folder / MANIFEST).read_bytes(), (folder / "part-00000.parquet").read_bytes()


class _Manifest:
    """A dataset whose manifest is the input: it opens and verifies, or is refused."""

    folder: Path | None = None

    def __call__(self, data: bytes) -> None:
        if self.folder is None:
            self.folder = _dataset()[0]
        (self.folder / MANIFEST).write_bytes(data)
        dataset = Dataset.open(str(self.folder))
        verify(dataset)
        dataset.encoding.encode({"x": X})


def _manifest_seeds() -> list[bytes]:
    folder, manifest, _ = _dataset()
    shutil.rmtree(folder)
    compact = json.dumps(json.loads(manifest), separators=(",", ":")).encode()
    nested = b"[" * 5000 + b"]" * 5000
    return [manifest, compact, compact.replace(b'"rows":8', b'"rows":1e999'), nested]


class _Shard:
    """A dataset whose shard is the input, with a manifest that promises just these bytes."""

    folder: Path | None = None

    def __call__(self, data: bytes) -> None:
        if self.folder is None:
            self.folder, _, _ = _dataset()
            self.dataset = Dataset.open(str(self.folder))
        (self.folder / "part-00000.parquet").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        shard = replace(self.dataset.shards[0], bytes=len(data), sha256=digest)
        dataset = replace(self.dataset, shards=(shard,))
        _VERIFIED.clear()  # a process remembers the hashes it has checked: a handful, not millions
        verify(dataset)
        with ShardReader(dataset, 0, ("who", "id")) as reader:
            groups = [reader.row_group(index) for index in range(len(reader.group_rows))]
        assert all(np.isfinite(group.x).all() and np.isin(group.y, range(3)).all() for group in groups)


def _shard_seeds() -> list[bytes]:
    folder, _, shard = _dataset()
    shutil.rmtree(folder)
    return [shard, *_parquet_seeds()[:3]]


class _Spec:
    """A run directory whose spec is the input: its trials and models are laid out, or it is refused."""

    folder: Path | None = None

    def __call__(self, data: bytes) -> None:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="nnjobs-fuzz-"))
        (self.folder / SPEC).write_bytes(data)
        run = RunDirectory(str(self.folder))
        spec = run.spec()
        run.rounds(spec)
        again = canonical(spec.to_json())
        assert canonical(JobSpec.from_json(json.loads(again)).to_json()) == again


def _spec_seeds() -> list[bytes]:
    folder, _, _ = _dataset()
    dataset = Dataset.open(str(folder))
    shutil.rmtree(folder)
    trial = Trial(
        index=0,
        split=3,
        rule=SplitRule((1, 2), (Stratum((2**63, 2**64), (TRAIN, TEST)),)),
        objective_rows=6,
        train_rows=(6,),
        validation_rows=(0,),
        test_rows=(2,),
        class_weights=(1.0, 0.5, 2.0),
        scaler=Scaler("standard", np.zeros(3), np.ones(3)),
    )
    config = Config.model_validate({"data": {"path": "d"}, "model": {"hidden": [4]}})
    return [canonical(JobSpec(config, dataset, trials).to_json()) for trials in ((trial,), (trial, trial))]


def mutations(seeds: list[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` damaged copies of the seeds: bits flipped, bytes replaced by telling ones, parts cut, doubled, spliced.

    For a sample without coverage; the same every time.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    telling = [
        b"\0",
        b"\xff",
        b"\x7f",
        b"\x80",
        b"-1",
        b"1e999",
        b"NaN",
        b"\xff" * 4,
        b"\xff" * 8,
        b"9" * 20,
        b'"',
        b"\n",
    ]
    for number in range(count):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(data) + 1))
            stop = at + int(rng.integers(1, 33))
            match int(rng.integers(0, 6)):
                case 0 if at < len(data):
                    data[at] ^= 1 << int(rng.integers(0, 8))
                case 1:
                    new = telling[int(rng.integers(0, len(telling)))]
                    data[at : at + len(new)] = new
                case 2:
                    del data[at:stop]
                case 3:
                    data[at:at] = data[at:stop]
                case 4:
                    other = seeds[int(rng.integers(0, len(seeds)))]
                    data[at:stop] = other[at:stop]
                case _ if rng.random() < 0.3:
                    del data[at:]
                case _:
                    data[at:at] = telling[int(rng.integers(0, len(telling)))]
        yield bytes(data)


TARGETS: dict[str, Target] = {
    "csv": Target(_Importer("a.csv", label="-1"), _csv_seeds),
    "npy": Target(_Importer("a.npy", label="-1"), _npy_seeds),
    "npz": Target(_Importer("a.npz", zipped), _npz_seeds),
    "mat": Target(_Importer("a.mat"), _mat_seeds),
    "idx": Target(_Images("a-images-idx3-ubyte"), _idx_seeds),
    "parquet": Target(_Importer("a.parquet", label="-1", nulls="mean"), _parquet_seeds),
    "arrow": Target(_Importer("a.arrow", label="-1", nulls="mean"), _arrow_seeds),
    "svmlight": Target(_Importer("a.svm"), _svmlight_seeds),
    "sparse": Target(_Importer("a.npz", resealed, label="-1"), _sparse_seeds),
    "wire": Target(_wire, _wire_seeds),
    "config": Target(_config, _config_seeds),
    "safetensors": Target(_safetensors, _safetensors_seeds),
    "manifest": Target(_Manifest(), _manifest_seeds),
    "spec": Target(_Spec(), _spec_seeds),
    "shard": Target(_Shard(), _shard_seeds),
}
