"""Images in folders and archives: which rows they become, how they are decoded, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nnlib.core.errors import DataError, UsageError
from nnlib.core.notes import NnjobsNote
from nnlib.data.dataset import Dataset
from nnlib.data.importing import image_tree
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.raw_rows import read_raw_rows

pytestmark = pytest.mark.filterwarnings("error::nnlib.core.notes.NnjobsNote")


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return array


def tree(root: Path, *shape: int, parts: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    """Write two images of two classes for each part; path -> pixels."""
    names = [str(Path(part, f"{class_}/{name}.png")) for part in parts for class_ in "ab" for name in ("1", "10", "2")]
    return {name: save(root / name, pixels(seed, *shape)) for seed, name in enumerate(names)}


def imported(tmp_path: Path, *sources: Path, **options: Any) -> tuple[Dataset, dict[str, list[Any]]]:
    """The dataset, and its columns in the order of the rows' ids."""
    number = len(list(tmp_path.glob("out*")))
    out = tmp_path / f"out{number}"
    dataset = import_dataset([str(source) for source in sources], str(out), ImportOptions(keep=("file",), **options))
    return dataset, pq.read_table(out / "part-00000.parquet").sort_by("row").to_pydict()


def images_of(dataset: Dataset, rows: dict[str, list[Any]]) -> np.ndarray:
    return np.array(rows["x"], np.uint8).reshape(-1, *dataset.shape)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    written = tree(tmp_path / "in", 4, 5)
    dataset, rows = imported(tmp_path, tmp_path / "in")
    assert (dataset.shape, dataset.x_dtype, dataset.x_scale, dataset.classes) == ((4, 5), "uint8", 1 / 255, ("a", "b"))
    assert rows["file"] == sorted(written)
    assert [dataset.classes[y] for y in rows["y"]] == ["a"] * 3 + ["b"] * 3
    assert np.array_equal(images_of(dataset, rows), np.stack([written[name] for name in rows["file"]]))


def test_colours_have_their_channels_first(tmp_path: Path) -> None:
    written = tree(tmp_path / "in", 4, 5, 3)
    dataset, rows = imported(tmp_path, tmp_path / "in")
    assert dataset.shape == (3, 4, 5)
    assert np.array_equal(images_of(dataset, rows), np.stack([written[n].transpose(2, 0, 1) for n in rows["file"]]))


def test_folders_of_parts_are_a_column(tmp_path: Path) -> None:
    tree(tmp_path / "in", 3, 3, parts=("test", "train", "val"))
    dataset, rows = imported(tmp_path, tmp_path / "in")
    assert dataset.columns["split"] == "string"
    assert rows["split"] == ["train"] * 6 + ["validation"] * 6 + ["test"] * 6
    assert rows["file"][0] == "train/a/1.png"
    assert dataset.classes == ("a", "b")


def test_an_archive_gives_the_bytes_of_its_folder(tmp_path: Path) -> None:
    tree(tmp_path / "in", 4, 5, 3, parts=("train", "test"))
    (tmp_path / "in" / ".DS_Store").write_bytes(b"?")
    (tmp_path / "in" / "train" / "Thumbs.db").write_bytes(b"?")
    plain, _ = imported(tmp_path, tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*"), reverse=True):
            archive.write(path, f"outer/{path.relative_to(tmp_path / 'in')}")
    kinds = {"in.tar": "w", "in.tar.gz": "w:gz", "in.tgz": "w:gz", "in.tar.xz": "w:xz"}
    for name, mode in kinds.items():
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(tmp_path / "in", ".")
    for name in ("in.zip", *kinds):
        dataset = import_dataset([str(tmp_path / name)], str(tmp_path / f"of-{name}"), ImportOptions(keep=("file",)))
        if name != "in.zip":  # there, the paths have one folder more
            assert [shard.sha256 for shard in dataset.shards] == [shard.sha256 for shard in plain.shards]
        rows = pq.read_table(tmp_path / f"of-{name}" / "part-00000.parquet").select(["row", "x", "y", "split"])
        assert rows.equals(pq.read_table(Path(plain.address) / "part-00000.parquet").select(["row", "x", "y", "split"]))


GREY, COLOUR = pixels(0, 4, 4), pixels(1, 4, 4, 3)
LUMA = np.asarray(Image.fromarray(COLOUR).convert("L"))
DEEP = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4096 + 77


def palette() -> Image.Image:
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 128, 7] + [0] * 762)
    image.putdata([0, 1] * 8)
    return image


PALETTE = np.array([[[255, 0, 0], [0, 128, 7]] * 2] * 4, np.uint8).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("images", "options", "shape", "first", "note"),
    [
        ({"1.png": GREY, "2.png": COLOUR}, {}, (3, 4, 4), np.stack([GREY] * 3), "1 of 2 images are grey"),
        ({"1.png": GREY, "2.png": COLOUR}, {"mode": "grey"}, (4, 4), GREY, "1 of 2 images have colours"),
        ({"1.png": COLOUR}, {"mode": "grey"}, (4, 4), LUMA, "1 of 1 images have colours"),
        ({"1.png": GREY}, {"mode": "rgb"}, (3, 4, 4), np.stack([GREY] * 3), "become colour ones$"),
        ({"1.png": np.dstack([COLOUR, GREY])}, {}, (3, 4, 4), COLOUR.transpose(2, 0, 1), "have an opacity"),
        ({"1.png": DEEP}, {}, (4, 4), (DEEP >> 8).astype(np.uint8), "have 16 bits a pixel"),
        ({"1.tif": DEEP}, {}, (4, 4), (DEEP >> 8).astype(np.uint8), "have 16 bits a pixel"),
        ({"1.png": GREY > 127}, {}, (4, 4), (GREY > 127) * np.uint8(255), None),
        ({"1.png": palette()}, {}, (3, 4, 4), PALETTE, None),
        ({"1.bmp": COLOUR}, {}, (3, 4, 4), COLOUR.transpose(2, 0, 1), None),
        ({"1.PGM": GREY}, {}, (4, 4), GREY, None),
        ({"1.ppm": COLOUR}, {}, (3, 4, 4), COLOUR.transpose(2, 0, 1), None),
        ({"1.tiff": COLOUR}, {}, (3, 4, 4), COLOUR.transpose(2, 0, 1), None),
    ],
)
def test_modes(
    tmp_path: Path, images: dict[str, Any], options: dict[str, Any], shape: Any, first: np.ndarray, note: str | None
) -> None:
    for class_ in "ab":
        for name, image in images.items():
            path = tmp_path / "in" / class_ / name
            path.parent.mkdir(parents=True, exist_ok=True)
            (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NnjobsNote)
        dataset, rows = imported(tmp_path, tmp_path / "in", **options)
    assert dataset.shape == shape
    assert np.array_equal(images_of(dataset, rows)[0], first)
    notes = [str(each.message) for each in caught if each.category is NnjobsNote]
    if note is None:
        assert notes == []
    else:
        assert len(notes) == 1
        doubled = note.replace("1 of 2", "2 of 4").replace("1 of 1", "2 of 2")
        assert notes[0].endswith(doubled.removesuffix("$")) if note.endswith("$") else doubled in notes[0]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.tif", "1.webp"])
def test_a_turned_camera(tmp_path: Path, turn: int, name: str) -> None:
    """The row is the image as viewers show it: the steps that EXIF names, written out with numpy."""
    seen = np.repeat(np.repeat(np.array([[250, 160, 80], [40, 120, 200]], np.uint8), 8, 0), 8, 1)
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.T,
        6: np.rot90(seen, 1),
        7: seen[::-1, ::-1].T,
        8: np.rot90(seen, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    for class_ in "ab":
        options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
        save(tmp_path / "in" / class_ / name, np.ascontiguousarray(stored), exif=exif, **options)
    with warnings.catch_warnings(action="ignore"):  # WebP has colours alone, and grey ones are what we compare
        dataset, rows = imported(tmp_path, tmp_path / "in", mode="grey")
    assert dataset.shape == (16, 24)
    assert np.abs(images_of(dataset, rows)[0].astype(int) - seen).max() <= (8 if name.endswith("jpg") else 0)


def test_several_sizes_need_a_word(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a" / "1.png", pixels(0, 8, 6))
    save(tmp_path / "in" / "b" / "2.png", pixels(1, 4, 6))
    with pytest.raises(DataError, match=r"b/2\.png: has 4 x 6 pixels, but .*a/1\.png has 8 x 6") as caught:
        imported(tmp_path, tmp_path / "in")
    assert "--resize 8x6" in str(caught.value)
    dataset, rows = imported(tmp_path, tmp_path / "in", resize=(4, 3))
    assert dataset.shape == (4, 3)
    half = Image.fromarray(pixels(0, 8, 6)).resize((3, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(images_of(dataset, rows)[0], np.asarray(half))
    assert dataset.encoding.reading is not None
    assert dataset.encoding.reading.to_json()["resize"] == [4, 3]  # the manifest says it, and predictions do it
    assert Dataset.open(dataset.address).encoding.reading == dataset.encoding.reading
    (new,) = read_raw_rows(str(tmp_path / "in" / "a" / "1.png"), dataset.encoding, shape=dataset.shape)
    assert np.array_equal(new.stored.reshape(4, 3), np.asarray(half))
    assert new.kept["file"].to_pylist() == ["1.png"]


def test_prediction_takes_what_the_model_takes(tmp_path: Path) -> None:
    tree(tmp_path / "in", 4, 4, 3)
    dataset, _ = imported(tmp_path, tmp_path / "in")
    new = tmp_path / "new"
    grey = save(new / "x.png", pixels(7, 4, 4))
    with pytest.warns(NnjobsNote, match="1 of 1 images are grey, they become colour ones$"):
        (rows,) = read_raw_rows(str(new), dataset.encoding, shape=dataset.shape)
    assert np.array_equal(rows.stored.reshape(3, 4, 4), np.stack([grey] * 3))
    assert rows.y is None
    save(new / "x.png", pixels(7, 5, 4, 3))
    with pytest.raises(DataError, match=r"x\.png: has 5 x 4 pixels, expected 4 x 4"):
        list(read_raw_rows(str(new), dataset.encoding, shape=dataset.shape))
    (rows,) = read_raw_rows(str(new), dataset.encoding, {"resize": (4, 4)}, shape=dataset.shape)
    assert rows.stored.shape == (1, 48)
    for changes, message in (({"resize": (5, 4)}, "--resize 5x4"), ({"mode": "grey"}, "--mode grey")):
        with pytest.raises(UsageError, match=message):
            list(read_raw_rows(str(new), dataset.encoding, changes, shape=dataset.shape))
    with pytest.raises(DataError, match="the model takes rows of 48 features, which are no images"):
        list(read_raw_rows(str(new), dataset.encoding, shape=(48,)))


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its few bytes do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def encoded(array: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


BIG = encoded(pixels(3, 40, 40), "PNG")


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (lambda root: (root / "a" / "1.png").write_bytes(b"no image"), "a/1.png", "is no image of a known format"),
        (lambda root: (root / "a" / "1.png").write_bytes(b""), "a/1.png", "is no image of a known format"),
        (lambda root: (root / "b" / "2.png").write_bytes(BIG[: len(BIG) // 2]), "b/2.png", "is damaged"),
        (lambda root: (root / "b" / "2.png").write_bytes(BIG[:600] + b"?" + BIG[601:]), "b/2.png", "is damaged"),
        (lambda root: (root / "a" / "1.png").write_bytes(png_header(40_000, 40_000)), "a/1.png", "pixels, more than"),
        (lambda root: (root / "a" / "1.png").write_bytes(png_header(10_000, 10_000)), "a/1.png", "pixels, more than"),
        (lambda root: (root / "c").mkdir(), "in/c", "there is no image of this class"),
        (lambda root: (root / "notes.md").write_text("?"), "in", r"no images by name: notes\.md"),
        (lambda root: (root / "README.txt").write_text("?"), "in", r"no images by name: README\.txt"),
        (lambda root: (root / "a" / "1.png").rename(root / "1.png"), "in/1.png", "lies beside the folders of the cl"),
        (lambda root: (root / "a" / "x.png").symlink_to("gone.png"), "a/x.png", "is not readable"),
        (lambda root: (root / "a" / "loop").symlink_to(root, target_is_directory=True), "a/loop", "is a link to a fo"),
        (lambda root: os.mkfifo(root / "a" / "pipe.png"), "a/pipe.png", "neither a file nor a folder"),
        (lambda root: (root / "a").rename(os.fsdecode(os.fsencode(root) + b"/\xff")), r"in/\\xff", "is not UTF-8"),
    ],
)
def test_bad_folders(tmp_path: Path, damage: Callable[[Path], object], file: str, message: str) -> None:
    tree(tmp_path / "in", 40, 40)
    damage(tmp_path / "in")
    with pytest.raises(DataError, match=message) as caught:
        import_dataset([str(tmp_path / "in")], str(tmp_path / "out"), ImportOptions(format="images"))
    assert str(caught.value.where["file"]).endswith(file.replace("\\\\", "\\"))
    assert not (tmp_path / "out").exists()
    assert "\n" not in caught.value.message


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    written = tree(tmp_path / "real", 3, 4)
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "x.png").symlink_to(tmp_path / "real" / "a" / "2.png")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "real" / "b", target_is_directory=True)
    dataset, rows = imported(tmp_path, tmp_path / "in")
    assert rows["file"] == ["a/x.png", "b/1.png", "b/10.png", "b/2.png"]
    assert np.array_equal(images_of(dataset, rows)[0], written["a/2.png"])


def test_odd_names(tmp_path: Path) -> None:
    for class_ in ("ä b", "it's 100%"):
        save(tmp_path / "in" / class_ / "a:b = 日本.png", pixels(0, 3, 4))
    save(Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/it's 100%/\xfe.png")), pixels(1, 3, 4))
    dataset, rows = imported(tmp_path, tmp_path / "in")
    assert dataset.classes == ("it's 100%", "ä b")
    assert rows["file"] == ["it's 100%/a:b = 日本.png", "it's 100%/\\xfe.png", "ä b/a:b = 日本.png"]


def test_a_folder_without_classes_cannot_be_imported(tmp_path: Path) -> None:
    save(tmp_path / "in" / "1.png", pixels(0, 3, 4))
    with pytest.raises(DataError, match="its images lie in no folders of classes"):
        imported(tmp_path, tmp_path / "in")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="there is no"):
        import_dataset([str(tmp_path / "empty")], str(tmp_path / "out"), ImportOptions(format="images"))


def test_bad_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive" * 200)
    with pytest.raises(DataError, match="is not a readable tar archive"):
        imported(tmp_path, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        link = tarfile.TarInfo("a/1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        imported(tmp_path, tmp_path / "b.tar")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as zipped, warnings.catch_warnings(action="ignore"):
        for _ in range(2):
            zipped.writestr("a/1.png", encoded(GREY, "PNG"))
    with pytest.raises(DataError, match="is in the archive twice"):
        imported(tmp_path, tmp_path / "c.zip")
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a/1.png", b"\0" * 100_001)
    monkeypatch.setattr(image_tree, "MOST_BYTES", 100_000)
    with pytest.raises(DataError, match="has 100,001 bytes, an image may have 100,000"):
        imported(tmp_path, tmp_path / "d.zip")


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "in", 3, 3)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError, match="needs the package Pillow") as caught:
        imported(tmp_path, tmp_path / "in")
    assert caught.value.hint == "pip install 'nnjobs[images]'"


def test_pictures_beside_data_are_no_dataset(tmp_path: Path) -> None:
    """A folder of Parquet files in which a plot lies is still one of Parquet files."""
    tree(tmp_path / "in", 3, 3)
    first, _ = imported(tmp_path, tmp_path / "in")
    for number in range(2):
        save(Path(first.address) / f"plot{number}.png", GREY)
    with pytest.warns(NnjobsNote, match="skipped"):
        again = import_dataset([first.address], str(tmp_path / "again"), ImportOptions(label="y", features=("x",)))
    assert again.shape == (9,)
