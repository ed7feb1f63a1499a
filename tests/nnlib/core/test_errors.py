"""Errors say where, what and what to do, and travel as plain records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.core.errors import ERRORS, ConfigError, DataError, JobError, NnjobsError, from_record


def subclasses(kind: type[NnjobsError]) -> set[type[NnjobsError]]:
    """Those that travel: what other modules derive from them arrives as a `JobError`."""
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__() if child.__module__ == kind.__module__))


def test_every_kind_travels() -> None:
    assert set(ERRORS.values()) == subclasses(NnjobsError) - {NnjobsError}
    for name, kind in ERRORS.items():
        error = kind("it broke", hint="mend it", worker=3, shard="part-00002.parquet", row=None)
        record = json.loads(json.dumps(error.to_record()))
        assert record["kind"] == name
        again = from_record(record)
        assert type(again) is kind
        assert str(again) == str(error) == "worker 3, shard part-00002.parquet: it broke\n  what to do: mend it"
        assert again.to_record() == record


def test_exit_codes() -> None:
    codes = {name: kind.exit_code for name, kind in ERRORS.items()}
    assert codes == {
        "UsageError": 2,
        "ConfigError": 2,
        "DataError": 3,
        "MismatchError": 3,
        "StorageError": 4,
        "BusyError": 4,
        "JobError": 4,
        "DivergedError": 5,
    }


def test_text() -> None:
    assert str(DataError("bad")) == "bad"
    assert str(ConfigError("bad", key="a.b")) == "key a.b: bad"
    assert DataError("bad", row=0).where == {"row": 0}  # 0 is a place, None is none


@pytest.mark.parametrize("where", [{"message": "x", "hint": "y", "self": 1}, {"": 1}, None, [], "worker", 5])
def test_any_record_becomes_an_error(where: Any) -> None:
    error = from_record({"kind": "NoSuchKind", "message": "m", "where": where})
    assert type(error) is JobError
    assert error.where == (where if isinstance(where, dict) else {})


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(["kind", "message", "hint", "where"]), st.none() | st.text() | st.integers()))
def test_nonsense_records_become_errors(record: dict[str, Any]) -> None:
    assert isinstance(str(from_record(record)), str)
