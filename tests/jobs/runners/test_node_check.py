"""What nodes are like, and whether they fit together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_job import small_spec

from jobs.runners.lines import decode_record
from jobs.runners.node_check import NODE_KEY, check_nodes, node_line, node_reports
from nnlib.core import numerics
from nnlib.core.errors import JobError
from nnlib.run.ledger import canonical
from nnlib.run.spec import WorkerPlan


def test_nodes_are_told_apart_and_must_agree() -> None:
    key, value = node_line(3, {"b", "a"})
    assert key == NODE_KEY
    (node,) = node_reports([value, value])
    worker, facts = decode_record(value)
    assert (worker, facts) == (3, node) and node["numerics"] == "a+b"
    check_nodes([node, {**node, "host": "other"}], strict=True)
    other = {**node, "host": "other", "numpy": "0.1"}
    check_nodes([node, other], strict=False)
    with pytest.raises(JobError, match=r"differ in numpy: 0\.1 on other"):
        check_nodes([node, other], strict=True)


def test_preflight_of_a_task_needs_no_model(tmp_path: Path) -> None:
    plan = WorkerPlan(1, (0,)).to_line()
    (tmp_path / "spec.json").write_bytes(canonical(small_spec(tmp_path).to_json()))
    command = [sys.executable, "-m", "jobs.mapreduce.round_job", "--mapper", "--phase", "preflight", "--check-node"]
    command += ["--report", "--spec", str(tmp_path / "spec.json")]
    done = subprocess.run(command, input=plan, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    key, _, value = done.stdout.partition("\t")
    assert key == "!node" and decode_record(value.encode())[1]["numerics"] == numerics.fingerprint()
