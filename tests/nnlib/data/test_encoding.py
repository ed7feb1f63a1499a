from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nnlib.core.errors import DataError
from nnlib.data.columns import RowOrigin
from nnlib.data.encoding import Encoding, FeatureColumn, vector_encoding

MIXED = Encoding(
    (
        FeatureColumn("a", fill=(2.5,)),
        FeatureColumn("colour", "categorical", 2, ("blue", "red")),
        FeatureColumn("v", "vector", 2),
    ),
    label="y",
    classes=("0", "1"),
    label_map={"10": "0"},
)


def columns(**changes: Any) -> dict[str, Any]:
    return {
        "a": pa.array([1, None, 3]),
        "colour": pa.array(["red", "blue", " red "]),
        "v": np.array([[1, 2], [3, 4], [5, 6]], np.int16),
    } | changes


def test_values_by_hand() -> None:
    x = MIXED.encode(columns())
    assert x.dtype == np.float32
    assert x.tolist() == [[1, 0, 1, 1, 2], [2.5, 1, 0, 3, 4], [3, 0, 1, 5, 6]]
    assert MIXED.feature_names == ["a", "colour=blue", "colour=red", "v[0]", "v[1]"]


def test_json_round_trip() -> None:
    assert Encoding.from_json(json.loads(json.dumps(MIXED.to_json()))) == MIXED


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"colour": pa.array(["red", "green", "red"])}, ("row 102", "colour", "'green'")),
        ({"colour": pa.array(["red", None, "red"])}, ("row 102", "colour", "missing")),
        ({"a": pa.array([1.0, float("inf"), 2.0])}, ("row 102", "column a", "inf")),
        ({"a": pa.array(["1", "two", "3"])}, ("row 102", "column a", "'two'")),
        ({"v": np.full((3, 2), np.nan)}, ("row 101", "v[0]", "missing")),
        ({"v": np.full((3, 2), 1e300)}, ("row 101", "v[0]", "float32")),
        ({"v": np.ones((3, 4))}, ("expected 2", "column v")),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        MIXED.encode(columns(**change), RowOrigin("some.csv", 100))
    assert all(part in str(caught.value) for part in ("some.csv", *parts))


def test_a_missing_column_is_named() -> None:
    given = columns()
    del given["colour"]
    with pytest.raises(DataError, match="colour"):
        MIXED.encode(given)


@pytest.mark.parametrize(
    "labels",
    [pa.array([10, 1, 0]), pa.array(["10", " 1", "00"]), pa.array([10.0, 1.0, 0.0]), np.array([10, 1, 0], np.uint8)],
)
def test_labels_in_any_form(labels: Any) -> None:
    y = MIXED.encode_labels(labels)
    assert y.dtype == np.int32
    assert y.tolist() == [0, 1, 0]


def test_unseen_and_missing_labels() -> None:
    with pytest.raises(DataError, match=r"row 2, column y: label '7'"):
        MIXED.encode_labels(pa.array(["0", "7"]))
    with pytest.raises(DataError, match=r"row 2, column y: the label is missing"):
        MIXED.encode_labels(pa.array(["0", None]))


def test_targets() -> None:
    encoding = vector_encoding(2, "float32", label="t")
    assert encoding.encode_labels(pa.array(["1.5", "-2"])).tolist() == [1.5, -2.0]
    with pytest.raises(DataError, match="row 2"):
        encoding.encode_labels(pa.array([1.0, None]))


def test_bytes_have_a_scale() -> None:
    encoding = vector_encoding(2, "uint8", scale=0.5, offset=-1.0)
    raw = {"x": np.array([[0, 255], [3, 4]], np.uint8)}
    assert encoding.encode(raw).dtype == np.uint8
    assert encoding.decode(encoding.encode(raw)).tolist() == [[-1.0, 126.5], [0.5, 1.0]]
