"""What nodes are like, and whether they fit together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.runners.lines import decode_record
from jobs.runners.node_check import NODE_KEY, check_nodes, node_line, node_reports
from nnlib.core.errors import JobError
from nnlib.run.spec import WorkerPlan


def test_nodes_are_told_apart_and_must_agree() -> None:
    key, value = node_line(3)
    assert key == NODE_KEY
    (node,) = node_reports([value, value])
    worker, facts = decode_record(value)
    assert (worker, facts) == (3, node)
    check_nodes([node, {**node, "host": "other"}], strict=True)
    other = {**node, "host": "other", "numpy": "0.1"}
    check_nodes([node, other], strict=False)
    with pytest.raises(JobError, match=r"differ in numpy: 0\.1 on other"):
        check_nodes([node, other], strict=True)


def test_preflight_of_a_task_needs_no_spec(tmp_path: Path) -> None:
    plan = WorkerPlan(1, (0,)).to_line()
    command = [sys.executable, "-m", "jobs.mapreduce.round_job", "--mapper", "--phase", "preflight", "--check-node"]
    done = subprocess.run([*command, "--report", "--spec", "none"], input=plan, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("!node\t")
