"""Which Python runs the tasks on the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_job import small_spec, with_hadoop

from jobs.runners.hadoop import task_environment
from jobs.runners.hadoop.pack import hash_of
from nnlib.core.errors import ConfigError
from nnlib.core.events import Note
from nnlib.run.spec import JobSpec
from nnlib.storage import storage


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return small_spec(tmp_path)


def test_the_nodes_own_python_needs_no_archive(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNJOBS_HDFS_HTTP", "http://nn:9870")
    runtime = with_hadoop(spec, python_bin="/opt/py/bin/python -s").config.runtime
    found = task_environment.environment(runtime, storage("hdfs://nn:8020/x"), lambda _: None)
    assert found.python == ("/opt/py/bin/python", "-s")
    assert found.archives == ()
    assert found.variables["NNJOBS_HDFS_HTTP"] == "http://nn:9870"
    assert found.variables["OPENBLAS_NUM_THREADS"] == "1"
    both = with_hadoop(spec, python_bin="python3", archive="x.tar.gz").config.runtime
    with pytest.raises(ConfigError, match="exclude each other"):
        task_environment.environment(both, storage("hdfs://nn:8020/x"), lambda _: None)


def test_an_archive_goes_up_under_its_hash_and_only_once(spec: JobSpec, tmp_path: Path) -> None:
    archive = tmp_path / "env.tar.gz"
    archive.write_bytes(b"packed")
    base = storage(f"file://{tmp_path}/base")
    notes: list[Note] = []
    runtime = with_hadoop(spec, archive=str(archive)).config.runtime
    first, second = (
        task_environment._configured_archive(str(runtime.hadoop.archive), base, notes.append) for _ in range(2)
    )
    assert first == second
    assert [name.removesuffix(".tar.gz") for name in base.names("environments")] == [hash_of(archive)]
    (note,) = notes
    assert note.level == "info"  # it is progress, no warning
    with pytest.raises(ConfigError, match="no such archive"):
        task_environment._configured_archive(str(tmp_path / "other"), base, notes.append)
