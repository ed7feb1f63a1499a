"""Facts of this machine: memory within the limits of its container, and when a process started."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that set the number of BLAS threads, read once, when numpy is loaded."""


def process_started(process: int) -> str | None:
    """Return when a process started, as the kernel counts time: it distinguishes processes that had the same number.
    None where the system does not report it."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot}/{stat.rpartition(')')[2].split()[19]}"


def free_memory_mb() -> int | None:
    """Memory in MiB that a new program could take on this machine; None where the system does not report it."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123  (a file of the kernel's)
            available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        return None
    return int(available[0]) // 1024 if available else None


def memory_bytes() -> int | None:
    """Memory in bytes that this process may use: the machine's, or less where a container limits it; None where the
    system does not report it."""
    limits = []
    with contextlib.suppress(ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return min(limits, default=None)


FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile", "asimd", "sve", "bf16")
"""Features of processors that decide which kernels torch and BLAS take, as Linux names them."""


def processor_features() -> list[str]:
    """List those of `FEATURES` that the processor has; [] where the system does not report them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    of_processor = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    flags = next(of_processor, "").split()
    return [feature for feature in FEATURES if feature in flags]
