"""The list of code that the user trusts: what it holds, and who may write it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nnlib.config import code_trust
from nnlib.config.code_trust import Code, is_trusted, require_trusted, trust_folder, trusting_code
from nnlib.config.options import torch_options
from nnlib.config.training import model_section
from nnlib.core.errors import UsageError
from nnlib.core.notes import NnjobsNote


@pytest.fixture(autouse=True)
def own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty list of this test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(code_trust, "_here", set())
    yield tmp_path / "state/nnjobs/trusted-code"


def section(factory: str = "nets:build", sha256: dict[str, str] | None = None, **arguments: Any) -> Any:
    hashes = {"nets.py": "a" * 64} if sha256 is None else sha256
    return torch_options(model_section(kind="torch", factory=factory, sha256=hashes, arguments=arguments))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process knows: the folder alone."""
    monkeypatch.setattr(code_trust, "_here", set())


def test_code_is_refused_until_it_is_trusted(own_list: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"does not trust yet: nets\.py, hash [0-9a-f]{16}\n.*--trust-code") as caught:
        require_trusted(section(), "runs/other")
    assert caught.value.exit_code == 2 and not own_list.exists()
    with trusting_code():
        require_trusted(section(), "runs/other")
    forget(monkeypatch)
    require_trusted(section(), "runs/other")
    (file,) = own_list.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and own_list.stat().st_mode & 0o777 == 0o700
    assert file.name == Code.of(section()).digest  # type: ignore[union-attr]
    file.unlink()
    with pytest.raises(UsageError):
        require_trusted(section(), "runs/other")


@pytest.mark.parametrize(
    ("other", "trusted"),
    [
        (section(width=3), True),  # arguments of the user's own function
        (section("nets:main"), False),
        (section(sha256={"nets.py": "b" * 64}), False),
        (section(sha256={"nets.py": "a" * 64, "blocks.py": "a" * 64}), False),
        (section("torch.hub:load", {"torch.hub": "a" * 64}), False),
        (section("simple-nn", {}), True),  # comes with nnjobs
    ],
)
def test_trust_is_in_a_factory_and_its_files(other: Any, trusted: bool) -> None:
    with trusting_code():
        require_trusted(section(), "run")
    if trusted:
        require_trusted(other, "run")
    else:
        with pytest.raises(UsageError):
            require_trusted(other, "run")


def test_the_arguments_of_an_installed_function_are_trusted_with_it() -> None:
    hashes = {"torch.hub": "a" * 64}
    with trusting_code():
        require_trusted(section("torch.hub:load", hashes, repo="mine"), "run")
    require_trusted(section("torch.hub:load", hashes, repo="mine"), "run")
    with pytest.raises(UsageError):
        require_trusted(section("torch.hub:load", hashes, repo="theirs"), "run")


@pytest.mark.parametrize("loose", ["file", "folder", "link"])
def test_what_others_may_have_written_does_not_count(
    own_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loose: str
) -> None:
    with trusting_code():
        require_trusted(section(), "run")
    forget(monkeypatch)
    (file,) = own_list.iterdir()
    if loose == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        (file if loose == "file" else own_list).chmod(0o722)
    with pytest.raises(UsageError):
        require_trusted(section(), "run")


def test_a_list_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with trusting_code(), pytest.warns(NnjobsNote, match="later commands on its runs will need --trust-code"):
        require_trusted(section(), "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_trusted(section(), "run")  # this process has been told


def test_many_may_add_at_once(own_list: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [Code(f"nets:f{number % 4}", (("nets.py", "a"),)) for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(code_trust._write, codes))
    forget(monkeypatch)
    assert all(map(is_trusted, codes)) and len(list(own_list.iterdir())) == 4
    assert trust_folder() == own_list
