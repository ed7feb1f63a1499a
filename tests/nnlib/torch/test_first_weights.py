"""A module's first numbers from a file: all of them, or one line that says what does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from user_nets import BLOCKS, NETS

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from nnlib.core.errors import DataError, MismatchError  # noqa: E402
from nnlib.core.notes import NnjobsNote  # noqa: E402
from nnlib.torch.first_weights import fill_module  # noqa: E402
from nnlib.torch.user_code import import_file  # noqa: E402

Arrays = dict[str, Any]


def module(seed: int, dtype: Any = torch.float32) -> Any:
    torch.manual_seed(seed)
    made = import_file({"nets.py": NETS, "blocks.py": BLOCKS}, "nets").build(shape=(4,), outputs=3)
    return made.to(dtype)


def fill(target: Any, folder: Path, arrays: Arrays) -> None:
    save_file({name: array.contiguous().clone() for name, array in arrays.items()}, folder / "w.safetensors")
    data = (folder / "w.safetensors").read_bytes()
    fill_module(target, str(folder / "w.safetensors"), hashlib.sha256(data).hexdigest())


def lacking(arrays: Arrays, *names: str) -> Arrays:
    return {name: array for name, array in arrays.items() if name not in names}


@pytest.mark.parametrize("tied", [("6.right.weight",), ("6.left.weight",), ()])
def test_every_number_is_taken(tmp_path: Path, tied: tuple[str, ...]) -> None:
    source, target = module(1), module(2)
    source[2].running_mean += 0.5
    source[2].num_batches_tracked += 3
    fill(target, tmp_path, lacking(source.state_dict(), *tied))
    for name, array in target.state_dict().items():
        assert torch.equal(array, source.state_dict()[name]), name
    assert target[6].left.weight is target[6].right.weight and not target[4].weight.requires_grad


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_are_converted_and_said(tmp_path: Path, half: Any) -> None:
    source, target = module(1), module(2)
    arrays = {
        name: array.to(half) if array.is_floating_point() else array for name, array in source.state_dict().items()
    }
    with pytest.warns(NnjobsNote, match=f"numbers of {str(half)[6:]}: they train as float32"):
        fill(target, tmp_path, arrays)
    assert torch.equal(target[1].weight, arrays["1.weight"].float())


CHANGES: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "missing": (lambda arrays: lacking(arrays, "1.bias", "2.running_var"), "lacks 1.bias, 2.running_var"),
    "unexpected": (lambda arrays: arrays | {"module.x": arrays["1.bias"]}, r"has module\.x, which the module has not"),
    "shape": (lambda arrays: arrays | {"1.bias": arrays["1.bias"][:2]}, r"1\.bias is \(2,\), not \(6,\)"),
    "wider": (lambda arrays: arrays | {"1.bias": arrays["1.bias"].double()}, r"1\.bias is float64, not float32"),
    "integers": (lambda arrays: arrays | {"6.order": arrays["6.order"].int()}, r"6\.order is int32, not int64"),
    "tied": (
        lambda arrays: arrays | {"6.left.weight": arrays["6.left.weight"] + 1},
        r"different numbers for the tied 6\.left\.weight, 6\.right\.weight",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_is_named(tmp_path: Path, name: str) -> None:
    change, says = CHANGES[name]
    with pytest.raises(DataError, match=says) as caught:
        fill(module(2), tmp_path, change(module(1).state_dict()))
    assert caught.value.exit_code == 3 and "w.safetensors" in str(caught.value)


def test_a_file_that_is_none_or_another(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"no weights")
    with pytest.raises(MismatchError, match="is not the one"):
        fill_module(module(1), str(tmp_path / "w"), "0" * 64)
    with pytest.raises(DataError, match="is no safetensors file"):
        fill_module(module(1), str(tmp_path / "w"), hashlib.sha256(b"no weights").hexdigest())


def test_float32_fits_float64(tmp_path: Path) -> None:
    source, target = module(1), module(2, torch.float64)
    fill(target, tmp_path, source.state_dict())
    assert torch.equal(target[1].weight, source[1].weight.double())
