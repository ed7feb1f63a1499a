"""One conversion: its order, its rounding, and that pieces do not matter."""

from __future__ import annotations

import numpy as np

from nnlib.data.feature_converter import Converter
from nnlib.data.scaling import Scaler


def test_the_converter_does_what_it_says() -> None:
    stored = np.array([[0, 51, 255]], np.uint8)
    scaler = Scaler("standard", np.array([0.5, 0.25, 0.0]), np.array([2.0, 4.0, 1.0]))
    converter = Converter(1 / 255, -0.5, scaler, "float64")
    np.testing.assert_allclose(converter(stored), [[-2.0, (0.2 - 0.5 - 0.25) * 4, 0.5]], rtol=1e-15)
    assert not converter.is_identity("uint8")
    assert Converter(1.0, 0.0, None, "float32").is_identity("float32")
    assert not Converter(1.0, 0.0, None, "float64").is_identity("float32")
    rows = np.random.default_rng(0).integers(0, 256, (50, 3), dtype=np.uint8)
    single = Converter(1 / 255, 0.1, scaler, "float32")
    np.testing.assert_array_equal(single(rows), np.concatenate([single(rows[i : i + 1]) for i in range(50)]))
