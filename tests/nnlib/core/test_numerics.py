"""The fingerprint of this machine's numpy is stable, and BLAS gets the threads it is told."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from product import ROOT
from threadpoolctl import threadpool_info

from nnlib.core import numerics


def test_fingerprint_is_equal_in_another_process() -> None:
    own = numerics.fingerprint()
    assert len(own) == 16 and int(own, 16) >= 0
    code = "from nnlib.core import numerics; print(numerics.fingerprint())"
    root = str(ROOT)
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == own


@pytest.mark.parametrize("function", ["exp", "tanh", "log1p"])
def test_fingerprint_sees_the_last_bit(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    own = numerics.fingerprint.__wrapped__()
    exact = getattr(np, function)
    monkeypatch.setattr(np, function, lambda x: np.nextafter(exact(x), x.dtype.type(np.inf)))
    assert numerics.fingerprint.__wrapped__() != own
    monkeypatch.undo()
    assert numerics.fingerprint.__wrapped__() == own


def test_fingerprint_sees_the_blas_kernel() -> None:
    """Another kernel of OpenBLAS, where it lets itself be chosen, computes other bits."""
    code = "from nnlib.core import numerics; print(numerics.fingerprint())"
    root = str(ROOT)
    found = {}
    for kernel in ("Prescott", "Haswell"):
        surroundings = {**os.environ, "OPENBLAS_CORETYPE": kernel}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False, env=surroundings
        )
        found[kernel] = done.stdout.strip()
    if not all(found.values()) or not any(pool.get("internal_api") == "openblas" for pool in threadpool_info()):
        pytest.skip("numpy's BLAS has no choice of kernels here")
    if threadpool_info()[0].get("architecture") not in ("Haswell", "SkylakeX", "Cooperlake", "Zen", "SapphireRapids"):
        pytest.skip("this processor has no other kernel")
    assert found["Prescott"] != found["Haswell"]


def test_blas_threads_are_limited_and_given_back() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    if not before:
        pytest.skip("numpy uses no BLAS that threadpoolctl knows")
    with numerics.blas_threads(1):
        assert set(threads()) == {1}
    assert threads() == before
    with pytest.raises(RuntimeError), numerics.blas_threads(1):
        raise RuntimeError
    assert threads() == before
