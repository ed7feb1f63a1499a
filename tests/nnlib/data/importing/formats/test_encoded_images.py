"""Columns of encoded images in Parquet and Arrow files: their pixels, their labels' names, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nnlib.core.errors import DataError, NnjobsError
from nnlib.data.dataset import Dataset
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.raw_rows import read_raw_rows

COLOURS = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), np.uint8)
LABELS = [2, 0, 1, 2, 0, 1, 2]
NAMES = ["cat", "ant", "bee"]
METADATA = {"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}}}


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def table(images: list[bytes | None], *, is_struct: bool = True, named: bool = True, labels: Any = LABELS) -> pa.Table:
    column: Any = images
    if is_struct:
        column = [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(images)]
    made = pa.table({"label": pa.array(labels[: len(images)], pa.int64()), "image": column})
    return made.replace_schema_metadata({"huggingface": json.dumps(METADATA)}) if named else made


def rows_of(dataset: Dataset) -> dict[str, list[Any]]:
    return pq.read_table(Path(dataset.address) / "part-00000.parquet").sort_by("row").to_pydict()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("is_struct", [True, False])
def test_pixels_and_names(tmp_path: Path, kind: str, is_struct: bool) -> None:
    made = table([png(image) for image in COLOURS], is_struct=is_struct)
    file = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(made, file, row_group_size=3)
    else:
        feather.write_feather(made, str(file))
    dataset = import_dataset([str(file)], str(tmp_path / "out"), ImportOptions())
    assert (dataset.shape, dataset.x_dtype, dataset.classes) == ((3, 5, 4), "uint8", ("ant", "bee", "cat"))
    rows = rows_of(dataset)
    assert np.array_equal(np.array(rows["x"]).reshape(7, 3, 5, 4), COLOURS.transpose(0, 3, 1, 2))
    assert [dataset.classes[y] for y in rows["y"]] == [NAMES[label] for label in LABELS]
    chunks = list(read_raw_rows(str(file), dataset.encoding, shape=dataset.shape))
    assert np.array_equal(np.concatenate([chunk.stored for chunk in chunks]), rows["x"])
    assert np.concatenate([chunk.y for chunk in chunks if chunk.y is not None]).tolist() == rows["y"]
    if is_struct:
        assert chunks[0].kept["image.path"].to_pylist()[:2] == ["0.png", "1.png"]


def test_labels_without_names_stay_numbers(tmp_path: Path) -> None:
    pq.write_table(table([png(image) for image in COLOURS], named=False), tmp_path / "in.parquet")
    dataset = import_dataset([str(tmp_path / "in.parquet")], str(tmp_path / "out"), ImportOptions())
    assert dataset.classes == ("0", "1", "2")


def test_several_files_have_one_form(tmp_path: Path) -> None:
    """The first is of colours, so a grey image in the second becomes one of colours."""
    grey = COLOURS[0, :, :, 0]
    pq.write_table(table([png(COLOURS[0]), png(COLOURS[1])]), tmp_path / "a.parquet")
    pq.write_table(table([png(grey)]), tmp_path / "b.parquet")
    files = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    with pytest.warns(UserWarning, match="some images are grey"):
        dataset = import_dataset(files, str(tmp_path / "out"), ImportOptions())
    assert np.array_equal(np.array(rows_of(dataset)["x"][2]).reshape(3, 5, 4), np.stack([grey] * 3))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([png(COLOURS[0]), None], {}, "row 2, column image: the image is missing"),
        ([png(COLOURS[0]), b"no image"], {}, "row 2, column image: is no image of a known format"),
        ([png(COLOURS[0]), png(COLOURS[1])[:90]], {}, "row 2, column image: is damaged"),
        ([png(COLOURS[0]), png(COLOURS[1, :4])], {}, "row 2, column image: has 4 x 4 pixels, expected 5 x 4"),
        ([png(COLOURS[0, :, :, 0]), png(COLOURS[1])], {}, "row 2, column image: has colours, the first image is grey"),
        ([png(COLOURS[0])] * 2, {"label": "nothing"}, "there is no column 'nothing'"),
    ],
)
def test_bad_images(tmp_path: Path, images: list[bytes | None], options: dict[str, Any], message: str) -> None:
    pq.write_table(table(images), tmp_path / "in.parquet")
    with pytest.raises(NnjobsError, match=message) as caught:
        import_dataset([str(tmp_path / "in.parquet")], str(tmp_path / "out"), ImportOptions(**options))
    assert caught.value.exit_code in (2, 3)
    assert not (tmp_path / "out").exists()


def test_a_label_without_a_name(tmp_path: Path) -> None:
    pq.write_table(table([png(image) for image in COLOURS], labels=[0, 1, 2, 3, 0, 1, 2]), tmp_path / "in.parquet")
    with pytest.raises(DataError, match="row 4, column label: label 3 is none of the 3 that the file names"):
        import_dataset([str(tmp_path / "in.parquet")], str(tmp_path / "out"), ImportOptions())


def test_resized(tmp_path: Path) -> None:
    pq.write_table(table([png(COLOURS[0]), png(COLOURS[1, :4])]), tmp_path / "in.parquet")
    options = ImportOptions(resize=(3, 3), mode="grey", label_map={"bee": "ant"})
    dataset = import_dataset([str(tmp_path / "in.parquet")], str(tmp_path / "out"), options)
    assert dataset.shape == (3, 3)
    seen = Image.fromarray(COLOURS[0]).convert("L").resize((3, 3), Image.Resampling.BILINEAR)
    assert rows_of(dataset)["x"][0] == np.asarray(seen).reshape(-1).tolist()


def test_bytes_of_text_are_text(tmp_path: Path) -> None:
    made = pa.table({"name": [b"x", b"y"], "v": [1.0, 2.0]})
    pq.write_table(made, tmp_path / "in.parquet")
    dataset = import_dataset([str(tmp_path / "in.parquet")], str(tmp_path / "out"), ImportOptions(label="name"))
    assert dataset.classes == ("x", "y")
