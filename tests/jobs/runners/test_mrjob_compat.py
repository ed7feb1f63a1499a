"""mrjob's missing modules on Python 3.12 and 3.13, as seen from any Python."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from importlib.machinery import ModuleSpec

import pytest

from jobs.runners import mrjob_compat
from jobs.runners.mrjob_compat import prepare_mrjob
from nnlib.core.errors import JobError


def hide(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    """Make one module look as if this Python did not have it."""
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == hidden else find(name, package)

    monkeypatch.delitem(sys.modules, hidden, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_pipes_is_supplied(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "pipes")
    prepare_mrjob()
    import pipes  # type: ignore[import-not-found,unused-ignore]

    assert pipes.quote is shlex.quote
    monkeypatch.delitem(sys.modules, "pipes")


def test_distutils_cannot_be_supplied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mrjob_compat, "_use_own_distutils", lambda: None)
    hide(monkeypatch, "distutils")
    with pytest.raises(JobError, match="pip install setuptools"):
        prepare_mrjob()


def test_mrjob_imports_here() -> None:
    prepare_mrjob()
    for module in ("mrjob.job", "mrjob.inline", "mrjob.local"):
        importlib.import_module(module)
