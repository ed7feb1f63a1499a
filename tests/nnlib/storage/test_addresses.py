"""What addresses and storages say of themselves, and that nobody else looks at schemes or classes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from product import PRODUCT, module_name, parsed

from nnlib.storage import Access, LocalStorage, has_scheme, is_remote_address, storage

DISPLAYED = {"jobs.runners.hadoop.staging", "jobs.runners.hadoop.yarn_rest"}
"""Modules that take an address apart for Hadoop's own names, not to learn what a storage is."""


@pytest.mark.parametrize(
    ("text", "scheme", "remote"),
    [("runs/a", False, False), ("/runs/a", False, False), ("file:///runs/a", True, False), ("hdfs:///a", True, True)],
)
def test_an_address_says_where_it_leads(text: str, scheme: bool, remote: bool) -> None:
    assert (has_scheme(text), is_remote_address(text)) == (scheme, remote)


def test_a_local_storage_is_not_remote_and_has_paths(tmp_path: Path) -> None:
    here = storage(f"file://{tmp_path}")
    assert not here.is_remote and here.root == str(tmp_path) and here.uri == f"file://{tmp_path}"
    assert here.local_path("a/b") == tmp_path / "a/b" and here.local_path() == tmp_path
    assert here.access() == Access()


def test_an_hdfs_storage_says_what_a_task_needs_to_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME", "NNJOBS_HDFS_HTTP", "NNJOBS_HDFS_CLIENT", "NNJOBS_HDFS_AUTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HADOOP_USER_NAME", "ann")
    monkeypatch.setenv("NNJOBS_HDFS_WAIT", "7")
    there = storage("hdfs://host:8020/a")
    assert there.is_remote and there.uri == there.root == "hdfs://host:8020/a" and there.local_path("b") is None
    assert there.access() == Access(
        {"NNJOBS_HDFS_WAIT": "7", "NNJOBS_HDFS_HTTP": "http://host:9870", "HADOOP_USER_NAME": "ann"}
    )


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_only_storages_look_at_schemes_and_classes(path: Path) -> None:
    module = module_name(path)
    if module.startswith("nnlib.storage") or module in DISPLAYED:
        return
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant):
            assert node.value != "://", (
                f"{module}, line {node.lineno}: ask nnlib.storage (has_scheme, Storage.is_remote)"
            )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            assert LocalStorage.__name__ not in ast.dump(node), f"{module}, line {node.lineno}: ask the storage"
