"""Whether two commits train the same bits: ``python tests/benchmarks/same_bits.py COMMIT [COMMIT]`` (default: HEAD).

Both are checked out side by side and train the same experiments by their own command line; every file of a run that
must not depend on when and where it was made (models, states, metrics, ledger lines, manifests, final scores) is
compared byte for byte. ``--hadoop`` adds one on the cluster that ``HADOOP_HOME`` and ``HADOOP_CONF_DIR`` name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from product import ROOT
from runs import deterministic_files

DIGITS = {"data.path": "{data}/digits", "workers": 4, "train.epochs": 4, "train.epochs_per_round": 2}
ITERATIONS = {"train.epochs": 8, "train.epochs_per_round": 4, "train.l2": 0.7, "model.hidden": "[25]"}
COLLECTIVE = {"sync.mode": "collective", "checkpoint.every": 2}

EXPERIMENTS: dict[str, dict[str, object]] = {
    "momentum": {},
    "sgd, equal weights, 3 reducers": {"train.optimizer": "sgd", "sync.weighting": "equal", "reducers": 3},
    "adam, averaged state, float64": {
        **{"train.optimizer": "adam", "train.lr": 0.01, "train.optimizer_state": "average", "model.dtype": "float64"},
    },
    "cg, shared streams": {
        **ITERATIONS,
        **{"train.optimizer": "cg", "sampling.streams": "shared", "sampling.fraction": 0.9, "model.init": "uniform01"},
    },
    "lbfgs, minmax": {**ITERATIONS, "train.optimizer": "lbfgs", "data.scale": "minmax"},
    "nesterov outer step, standard scale": {
        **{"sync.outer.kind": "nesterov", "sync.outer.lr": 0.8, "sync.outer.momentum": 0.5, "data.scale": "standard"},
    },
    "server momentum, k-fold": {
        **{
            "sync.outer.kind": "momentum",
            "sync.outer.momentum": 0.5,
            "split.folds": 3,
            "train.class_weights": "balanced",
        },
    },
    "sweep, best round": {
        **{"sweep.train.lr": "[0.02, 0.1]", "sweep.model.hidden": "[[20], [40, 20]]", "split.validation": 0.2},
        **{"train.keep": "best", "checkpoint.keep": 1},
    },
    "int8 deltas": {"sync.precision": "int8"},
    "collective, error feedback": {**COLLECTIVE, "sync.precision": "int8", "sync.error_feedback": "true"},
    "collective, overlap": {**COLLECTIVE, "sync.overlap": 1, "sync.overlap_drain": 2, "train.epochs": 8},
    "collective, gradients": {**COLLECTIVE, "sync.every": "batch", "train.epochs": 2},
    "auto rounds": {"train.epochs_per_round": "auto", "sync.round_cost": 0.5, "train.epochs": 6},
    "large net, two blocks": {"model.hidden": "[150, 150]", "train.epochs": 2},
}
"""Name -> keys that differ from ``configs/digits.yaml``."""


def train(tree: Path, where: Path, name: str, runner: str, data: Path) -> tuple[dict[str, str], str]:
    """The hashes of a run's files and its ``model_sha256``, trained by the code in ``tree``."""
    run = where / f"{name} {runner}".replace(" ", "_").replace(",", "")
    run_dir = f"hdfs:///tmp/same-bits/{where.name}/{os.getpid()}" if runner == "hadoop" else str(run)
    keys = {**DIGITS, **EXPERIMENTS[name]}
    settings = [f"--set={key}={str(value).format(data=data)}" for key, value in keys.items()]
    if runner == "hadoop":
        settings.append("--set=data.path=hdfs:///tmp/same-bits/digits")
    command = ["train", str(ROOT / "configs/digits.yaml"), "-r", runner, "--run-dir", run_dir, "--json", *settings]
    output = nnjobs(tree, *command)
    return ({} if runner == "hadoop" else deterministic_files(run)), json.loads(output.splitlines()[-1])["model_sha256"]


def nnjobs(tree: Path, *arguments: str) -> str:
    """Standard output of a command of the code in ``tree``. Raises `SystemExit` with its messages if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jobs", *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} in {tree}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Compare; exit status 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commits", nargs="+", metavar="COMMIT", help="a commit, or the path of a checkout")
    parser.add_argument("--hadoop", action="store_true")
    parser.add_argument("--inline", action="store_true", help="inline runs alone")
    parser.add_argument("-k", default="", help="only experiments whose name holds this")
    options = parser.parse_args()
    one, two = [*options.commits, "HEAD"][:2]
    differing, runs = 0, 0
    with tempfile.TemporaryDirectory(prefix="same-bits-") as folder:
        where = Path(folder)
        trees = [checkout(commit, where / f"tree-{index}") for index, commit in enumerate((one, two))]
        try:
            data = where / "data"
            nnjobs(trees[0], "data", "import", "digits", "-o", str(data / "digits"), "--shards", "8")
            if options.hadoop:
                hdfs = ("-o", "hdfs:///tmp/same-bits/digits", "--shards", "8", "--overwrite")
                nnjobs(trees[0], "data", "import", "digits", *hdfs)
            for name in [name for name in EXPERIMENTS if options.k in name]:
                runners = ["inline"] if options.inline else ["inline", "local"]
                if options.hadoop and name == "momentum":
                    runners.append("hadoop")
                for runner in runners:
                    first, second = (
                        train(tree, where / f"runs-{i}", name, runner, data) for i, tree in enumerate(trees)
                    )
                    runs += 1
                    differing += first != second
                    names = set(first[0].items()) ^ set(second[0].items())
                    found = "the same" if first == second else f"DIFFERENT: {sorted({name for name, _ in names})}"
                    print(f"{name:40} {runner:7} {second[1][:12]} {len(second[0]):3} files {found}", flush=True)
        finally:
            for tree in trees:
                if tree.parent == where:
                    subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False)
    print(f"{runs} runs compared, {differing} differ")
    raise SystemExit(bool(differing))


def checkout(commit: str, where: Path) -> Path:
    """A folder with a commit's files."""
    if (Path(commit) / "nnlib").is_dir():
        return Path(commit).resolve()
    subprocess.run(["git", "worktree", "add", "--detach", "--force", str(where), commit], cwd=ROOT, check=True)
    return where


if __name__ == "__main__":
    main()
