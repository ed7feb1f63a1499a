"""The report of a torch model: its arrays, pictures of its rows, the version of torch."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("torch")

from images import torch_config, write_images

from jobs.driver import driver
from nnlib.report import write_report

NETS = """
from torch import nn


class Net(nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.fixed = nn.Conv2d(3, 4, 3)
        self.fixed.requires_grad_(False)
        self.norm = nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(144, 6), nn.Linear(6, 6)
        self.third = nn.Linear(6, 6)
        self.third.weight = self.second.weight
        self.last = nn.Linear(6, outputs)

    def forward(self, x):
        x = self.first(self.norm(self.fixed(x)).relu().flatten(1)).relu()
        return self.last(self.third(self.second(x).relu()))


def net(shape, outputs):
    return Net(shape, outputs)
"""


def table_rows(page: str) -> dict[str, list[str]]:
    """The lines of the table of arrays: name -> the other cells."""
    section = page.partition('<section id="model"')[2].partition("</section>")[0]
    lines = re.findall(r"<tr><th scope=\"row\"[^>]*>(.*?)</th>(.*?)</tr>", section)
    return {name: re.findall(r"<td[^>]*>(.*?)</td>", cells) for name, cells in lines}


def test_every_array_is_listed_with_how_it_is_combined(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    data = write_images(tmp_path / "data", 90, shards=2, channels=3)
    config = torch_config(
        data, tmp_path / "run", "nets:net", workers=2, model__files=[str(tmp_path / "nets.py")], train__epochs=2
    )
    driver.train(config)
    page = Path(write_report([str(tmp_path / "run")])["output"]).read_text("utf-8")
    assert table_rows(page) == {
        "norm.weight": ["4", "float32", "trained", "mean", "4"],
        "norm.bias": ["4", "float32", "trained", "mean", "4"],
        "first.weight": ["6 × 144", "float32", "trained", "mean", "864"],
        "first.bias": ["6", "float32", "trained", "mean", "6"],
        "second.weight = third.weight": ["6 × 6", "float32", "trained", "mean", "36"],
        "second.bias": ["6", "float32", "trained", "mean", "6"],
        "third.bias": ["6", "float32", "trained", "mean", "6"],
        "last.weight": ["3 × 6", "float32", "trained", "mean", "18"],
        "last.bias": ["3", "float32", "trained", "mean", "3"],
        "norm.running_mean": ["4", "float32", "buffer", "mean", "4"],
        "norm.running_var": ["4", "float32", "buffer", "mean", "4"],
        "norm.num_batches_tracked": ["one number", "int64", "buffer", "largest", "1"],
        "fixed.weight": ["4 × 3 × 3 × 3", "float32", "frozen", "not sent", "108"],
        "fixed.bias": ["4", "float32", "frozen", "not sent", "4"],
    }
    assert f"torch {metadata.version('torch')}" in page
    assert page.count("<img ") >= 1, "misread rows are shown as pictures"
