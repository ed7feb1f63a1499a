"""A factory that does not make what is needed: one line, exit code 2, and no run is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from images import torch_config, write_images

pytest.importorskip("torch")

from jobs.driver import driver
from nnlib.config import code_trust, kinds
from nnlib.config.kinds import MODELS
from nnlib.core.errors import ConfigError, MismatchError

HEAD = "import torch\nfrom torch import nn\ncalls = []\n"


@pytest.fixture(autouse=True)
def own_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(code_trust, "_here", set())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_images(tmp_path_factory.mktemp("data") / "bars", 60, shards=2)


def config(dataset: str, folder: Path, body: str, **changes: Any) -> Any:
    lines = [f"    {line}\n" for line in body.splitlines()]
    (folder / "nets.py").write_text(f"{HEAD}def build(*, shape, outputs):\n{''.join(lines)}")
    fixed = {"workers": 2, "train__epochs": 1, "train__epochs_per_round": 1, "train__batch_size": 60}
    factory = changes.pop("factory", "nets:build")
    return torch_config(dataset, folder / "run", factory, model__files=[str(folder / "nets.py")], **fixed | changes)


def parameter(value: str) -> str:
    return f"m = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))\nm.extra = nn.Parameter({value})\nreturn m"


@pytest.mark.parametrize(
    ("body", "changes", "says"),
    [
        ("return 3", {}, r"returned int, not a torch\.nn\.Module"),
        ("raise OSError('no such place')", {}, r"raised OSError: no such place \(nets\.py:5\)"),
        ("import einopsy", {}, r"raised ModuleNotFoundError: No module named 'einopsy' \(nets\.py:5\)"),
        ("return nn.Flatten()", {}, "no parameters to train"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))", {}, r"returns shape \(2, 7\) for 2 rows"),
        ("return nn.Linear(5, outputs)", {}, "fails on a batch of shape .*RuntimeError"),
        ("calls.append(1)\nreturn nn.Sequential(nn.Flatten(), nn.Linear(64, outputs, bias=len(calls) == 1))", {},
         "made other parameters or buffers when it was called again"),
        (parameter("torch.zeros(2, dtype=torch.complex64)"), {}, "extra is complex64: real numbers"),
        (parameter("torch.zeros(2, dtype=torch.bfloat16)"), {}, "extra is bfloat16: training keeps float32"),
        (parameter("torch.zeros(2, device='meta')"), {}, "extra is on the meta device"),
        (parameter("torch.tensor([1.0, float('nan')])"), {}, "1 of the first numbers of parameter extra are not fin"),
        ("return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))", {}, "it is lazy"),
        ("return 1", {"model__arguments": {"width": 3}}, r"raised TypeError: .*unexpected keyword argument 'width'"),
        ("return 1", {"factory": "nets:biuld"}, "nets has no biuld\n.*its functions are build"),
        ("return 1", {"factory": "nets:calls"}, "nets:calls is list, not a function"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))",
         {"train__micro_batch": 1}, r"fails on a batch of shape \(1, 1, 8, 8\).*\n.*two rows in every batch"),
        ("class Two(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
         "        self.f = nn.Linear(64, outputs)\n    def forward(self, x):\n"
         "        z = self.f(x.flatten(1))\n        return (z, z) if self.training else z\nreturn Two()", {},
         r"returns tuple for .* rows"),
        ("class Moves(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
         "        self.f = nn.Linear(64, outputs)\n        self.n = nn.Parameter(torch.zeros(1), requires_grad=False)\n"
         "    def forward(self, x):\n        self.n += 1\n        return self.f(x.flatten(1))\nreturn Moves()", {},
         "training changed n, a parameter that needs no gradient"),
    ],
)  # fmt: skip
def test_a_factory_that_does_not_fit(dataset: str, tmp_path: Path, body: str, changes: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        driver.train(config(dataset, tmp_path, body, **changes))
    assert caught.value.exit_code == 2 and "\n" not in caught.value.message
    assert not (tmp_path / "run/spec.json").exists()


def test_float64_trains(dataset: str, tmp_path: Path) -> None:
    body = "return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))"
    assert driver.train(config(dataset, tmp_path, body, model__dtype="float64")).test_accuracy is not None


def test_an_installed_module_is_a_factory_while_it_is_the_same(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site/installed_nets"
    package.mkdir(parents=True)
    text = f"{HEAD}def build(*, shape, outputs):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))\n"
    (package / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    settings = torch_config(dataset, tmp_path / "run", "installed_nets:build", workers=2, train__epochs=2)
    driver.train(settings)
    (package / "__init__.py").write_text(f"{text}\n# of another version\n")
    longer = torch_config(dataset, tmp_path / "run", "installed_nets:build", workers=2, train__epochs=4)
    with pytest.raises(ConfigError, match="installed_nets has changed since the run began"):
        driver.train(longer, resume=True)
    import nnlib

    with pytest.raises(MismatchError, match=r"installed_nets on .* is not the one that this run was made with"):
        nnlib.load(str(tmp_path / "run"))


def test_without_torch_one_line_says_what_to_install(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(reference: str) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(kinds, "load_named", missing)
    with pytest.raises(ConfigError, match=r"needs the package torch.*\n.*pip install 'nnjobs\[torch\]'"):
        MODELS["torch"].load()
