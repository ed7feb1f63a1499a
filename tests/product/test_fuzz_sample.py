"""A sample of the fuzzing (see fuzz/README.md) in every test run: the same damaged inputs each time, without coverage.

Only typed errors may escape; what is accepted must verify, encode back or render back (the targets check that).
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS, check, mutations

from nnlib.core.notes import NnjobsNote

SAMPLE = 250
LONG = 50_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def tried(name: str, count: int) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning tells people of our insides
        warnings.simplefilter("ignore", NnjobsNote)  # notes are meant for people
        results = [check(target, data) for data in [*seeds, *mutations(seeds, count)]]
    assert any(results[: len(seeds)]), "no seed is good input: the target tests nothing"
    assert not all(results), "nothing was refused"


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_end_in_typed_errors(name: str) -> None:
    tried(name, SAMPLE)


@pytest.mark.full
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_inputs_end_in_typed_errors(name: str) -> None:
    tried(name, LONG)


@pytest.mark.parametrize("name", ["wire", "config", "safetensors"])
@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_end_in_typed_errors(name: str, data: bytes) -> None:
    check(TARGETS[name], data)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    values=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    key=st.sampled_from(["data", "train", "train.lr", "model.hidden", "split.seeds", "workers", "train.class_weights"]),
)
def test_any_value_of_any_key_is_taken_or_refused(values: object, key: str) -> None:
    text = json.dumps(values)
    check(TARGETS["config"], f"data: {{path: d}}\0{key}={text}".encode("utf-8", "surrogatepass"))
