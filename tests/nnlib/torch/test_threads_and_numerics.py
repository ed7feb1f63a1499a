"""torch's threads follow ``runtime.blas_threads``, and its kernels are part of the numerics of torch runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from images import torch_config, write_images

torch = pytest.importorskip("torch")

from jobs.driver import driver  # noqa: E402
from jobs.driver.verification import verify  # noqa: E402
from nnlib.core import numerics  # noqa: E402
from nnlib.core.numerics import blas_threads  # noqa: E402
from nnlib.run.directory import RunDirectory  # noqa: E402
from nnlib.run.ledger import LedgerLine  # noqa: E402
from nnlib.torch import fingerprint as torch_fingerprint  # noqa: E402
from nnlib.torch.fingerprint import fingerprint, probe  # noqa: E402


def test_torchs_threads_follow_in_every_thread_and_are_given_back() -> None:
    before = torch.get_num_threads()
    seen = []
    with blas_threads(3):
        assert torch.get_num_threads() == 3
        with blas_threads(2):
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    assert seen == [2]


def test_torch_that_is_imported_within_a_block_follows_it() -> None:
    code = (
        "from nnlib.core.numerics import blas_threads\n"
        "with blas_threads(2):\n"
        "    import nnlib.torch, torch\n"
        "    print(torch.get_num_threads())\n"
        "print(torch.get_num_threads())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(numerics.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "1"]


def test_the_fingerprint_repeats_and_draws_nothing() -> None:
    state = torch.default_generator.get_state()
    first = fingerprint()
    torch_fingerprint._combined.cache_clear()
    assert fingerprint() == first != numerics.fingerprint()
    assert torch.equal(torch.default_generator.get_state(), state)
    results = list(probe(torch.device("cpu")))
    assert len(results) > 25 and all(torch.isfinite(result).all() and result.abs().sum() > 0 for result in results)


def test_the_fingerprint_tells_kernels_apart() -> None:
    code = "from nnlib.torch.fingerprint import fingerprint; print(fingerprint())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        cwd=Path(numerics.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no other kernel")
    assert done.stdout.strip() != fingerprint()


def test_a_torch_run_names_torchs_numerics_and_is_verified_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_images(tmp_path / "data", 60, shards=2)
    run = tmp_path / "run"
    driver.train(torch_config(data, run, workers=2, train__epochs=2))
    directory = RunDirectory.open(str(run))
    log = directory.rounds(directory.spec()).log
    assert LedgerLine.parse(log.ledger(1)).numerics == (fingerprint(),)
    assert verify(str(run)).recomputed == [1]

    monkeypatch.setattr(torch_fingerprint, "_combined", lambda *of: "0123456789abcdef")
    found = verify(str(run))
    assert found.problems == [] and found.recomputed == []
    assert "other kernel" in found.notes[0] and "0123456789abcdef" in found.notes[0]
    assert json.dumps(found.to_json())
