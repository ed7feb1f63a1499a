"""An import by jobs gives the bytes of an import by one process, and its errors; a torn one leaves nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.__main__ import main
from jobs.batch import import_data
from jobs.batch.import_data import grouped, import_by_jobs
from jobs.batch.launcher import MapLauncher
from nnlib.config.schema import Runtime
from nnlib.core.errors import DataError, JobError, MismatchError, NnjobsError, UsageError
from nnlib.data.dataset import MANIFEST
from nnlib.data.importing import import_plan
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.import_steps import write_shards

ROWS = (60, 31, 0, 1, 240)
OPTIONS = ImportOptions(label="y", categorical=("colour",), keep=("site",), nulls="mean", shards=5, row_group_rows=20)


@pytest.fixture(scope="module")
def tables() -> list[pa.Table]:
    """Files of very different sizes, with missing values; colours and labels that not all of them have."""
    rng = np.random.default_rng(5)
    made = []
    for number, rows in enumerate(ROWS):
        a = [None if index % 7 == number else float(value) for index, value in enumerate(rng.normal(size=rows) * 1e3)]
        made.append(
            pa.table(
                {
                    "a": pa.array(a, pa.float64()),
                    "colour": pa.array([f"c{each}" for each in rng.integers(0, number + 2, rows)], pa.string()),
                    "site": pa.array(rng.integers(0, 9, rows), pa.int64()),
                    "y": pa.array([f"class {each}" for each in rng.integers(0, min(number + 1, 3), rows)], pa.string()),
                }
            )
        )
    return made


@pytest.fixture(scope="module")
def folders(tables: list[pa.Table], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows as CSV and as Parquet files, with a mark that is none of them."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("csv", "parquet")}
    for number, table in enumerate(tables):
        pq.write_table(table, folders["parquet"] / f"part {number}.parquet", row_group_size=50)
        lines = [",".join("" if value is None else str(value) for value in row.values()) for row in table.to_pylist()]
        text = "\n".join([",".join(table.column_names), *lines]) + "\n"
        (folders["csv"] / f"part {number}.csv").write_text(text)
    for folder in folders.values():
        (folder / "_SUCCESS").touch()
        (folder / ".hidden").write_text("no data")
    return folders


def content(dataset: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(dataset.iterdir())}


def of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir() if path.name.startswith("part"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("changes", [{}, {"by_label": True, "seed": 4}], ids=["shuffled", "by label"])
def test_the_bytes_of_one_process(
    folders: dict[str, Path], tmp_path: Path, kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, **changes)
    monkeypatch.setattr(import_plan, "BUCKET_BYTES", 1000)  # several buckets a shard
    import_dataset(of(folders[kind]), str(tmp_path / "one"), options)
    for number, least in enumerate((1, 1 << 30)):  # a task a file, or one for all
        monkeypatch.setattr(import_data, "TASK_BYTES", least)
        import_by_jobs([str(folders[kind])], str(tmp_path / str(number)), options, Runtime())
        assert content(tmp_path / str(number)) == content(tmp_path / "one")


def test_in_processes_and_from_the_command_line(folders: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["--label", "y", "--features", "a,site", "--nulls", "mean", "--shards", "3"]
    assert main(["data", "import", *of(folders["csv"]), "-o", str(tmp_path / "one"), *arguments]) == 0
    assert main(["data", "import", *of(folders["csv"]), "-o", str(tmp_path / "jobs"), *arguments, "-r", "local"]) == 0
    assert content(tmp_path / "jobs") == content(tmp_path / "one")


def both(sources: list[str], tmp_path: Path, options: ImportOptions) -> tuple[NnjobsError, NnjobsError]:
    """The errors of the two ways, neither of which leaves anything."""
    with pytest.raises(NnjobsError) as one:
        import_dataset(sources, str(tmp_path / "one"), options)
    with pytest.raises(NnjobsError) as jobs:
        import_by_jobs(sources, str(tmp_path / "jobs"), options, Runtime())
    assert not any((tmp_path / name).exists() for name in ("one", "jobs"))
    return one.value, jobs.value


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (["a,y\n1,u\n2,v\n", "a,y\n3,u\n4,v\nx,u\n"], {}),
        (["a,y\n1,u\n2,v\n", "a,y\n3,u\n,v\n"], {}),
        (["a,y\n1,u\n2,v\n", "b,y\n3,u\n"], {}),
        (["a,y\n1,u\n2,u\n", "a,y\n3,u\n"], {}),
        (["a,y\n1,u\n2,v\n", "a,y\n3,\n"], {}),
        (["a,y\n1,u\n2,v\n", "a,y\n300,u\n"], {"dtype": "uint8"}),
        (["a,y\n,u\n,v\n", "a,y\n,u\n"], {"nulls": "mean"}),
        (["a,y\n1,u\n2,v\n"], {"shards": 3}),
        (["a,y\n"], {}),
        (["a,y\n1,u\n2,v\n"], {"label": "z"}),
    ],
    ids=["text", "missing", "columns", "one class", "label", "too large", "all missing", "shards", "no rows", "column"],
)
def test_the_errors_of_one_process(tmp_path: Path, texts: list[str], options: dict[str, Any]) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.csv").write_text(text)
    sources = sorted(str(path) for path in folder.iterdir())
    one, jobs = both(sources, tmp_path, ImportOptions(**{"label": "y", **options}))
    assert type(one) is type(jobs)
    assert one.message == jobs.message
    assert {key: value for key, value in jobs.where.items() if key != "worker"} == one.where


def test_files_that_are_no_data(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    with pytest.raises(DataError, match="there is no file"):
        import_by_jobs([str(folder)], str(tmp_path / "out"), OPTIONS, Runtime())
    (folder / "a.csv").write_text("a,y\n1,u\n")
    (folder / "b.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="holds csv and parquet files"):
        import_by_jobs([str(folder)], str(tmp_path / "out"), OPTIONS, Runtime())
    with pytest.raises(UsageError, match="not npz"):
        import_by_jobs([str(folder)], str(tmp_path / "out"), replace(OPTIONS, format="npz"), Runtime())
    with pytest.raises(UsageError, match="do not see a folder on this machine"):
        import_by_jobs([str(folder)], str(tmp_path / "out"), OPTIONS, Runtime(runner="hadoop"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What to call before a phase, by its name."""
    calls: dict[str, Any] = {}
    run = MapLauncher.run

    def watched(self: MapLauncher, kind: Any, phase: str, *arguments: Any, **options: Any) -> Any:
        calls.get(phase, lambda site: None)(self)
        return run(self, kind, phase, *arguments, **options)

    monkeypatch.setattr(MapLauncher, "run", watched)
    return calls


def test_a_file_that_changes_meanwhile(tmp_path: Path, between: dict[str, Any]) -> None:
    raw = tmp_path / "raw.csv"
    raw.write_text("a,y\n1,u\n2,v\n")
    between["deal"] = lambda site: raw.write_text("a,y\n1,u\n3,v\n")
    with pytest.raises(MismatchError, match="changed while it was imported"):
        import_by_jobs([str(raw)], str(tmp_path / "out"), ImportOptions(label="y"), Runtime())
    assert not (tmp_path / "out").exists()


def test_an_interrupted_import_leaves_no_shard(
    folders: dict[str, Path], tmp_path: Path, between: dict[str, Any]
) -> None:
    def interrupt(site: MapLauncher) -> None:
        raise KeyboardInterrupt

    between["write"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        import_by_jobs([str(folders["csv"])], str(tmp_path / "out"), OPTIONS, Runtime())
    assert not (tmp_path / "out").exists() or content(tmp_path / "out") == {}


def test_a_task_that_outlives_its_import_writes_nothing(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*arguments: Any) -> Any:
        plan, shards, partitions, names, output, _ = arguments
        return write_shards(plan, shards, partitions, names, output, lambda: False)

    monkeypatch.setattr("jobs.batch.import_job.write_shards", unwanted)
    with pytest.raises(JobError, match="was cancelled"):
        import_by_jobs([str(folders["csv"])], str(tmp_path / "out"), OPTIONS, Runtime())
    assert not (tmp_path / "out").exists()


def test_an_old_dataset_stays_until_the_rows_are_read(
    folders: dict[str, Path], tmp_path: Path, between: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    import_by_jobs([str(folders["csv"])], str(out), OPTIONS, Runtime())
    before = content(out)
    with pytest.raises(UsageError, match="there is a dataset already"):
        import_by_jobs([str(folders["csv"])], str(out), OPTIONS, Runtime())
    bad = tmp_path / "bad.csv"
    bad.write_text("a,colour,site,y\nx,red,1,u\n")
    with pytest.raises(DataError, match="is not a number"):
        import_by_jobs([str(bad)], str(out), replace(OPTIONS, overwrite=True), Runtime())
    assert content(out) == before
    import_by_jobs([str(folders["csv"])], str(out), replace(OPTIONS, overwrite=True, shards=2), Runtime())
    assert sorted(content(out)) == [MANIFEST, "part-00000.parquet", "part-00001.parquet"]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.integers(1, 2000), st.integers(1, 9))
def test_groups_are_all_items_in_order(sizes: list[int], least: int, slots: int) -> None:
    groups = grouped(sizes, least, slots)
    assert [index for part in groups for index in range(part.start, part.stop)] == list(range(len(sizes)))
    assert all(part.stop > part.start for part in groups)
    assert len(groups) == min(len(sizes), max(slots, sum(sizes) // least, 1))
