"""Coverage-guided fuzzing: ``python tests/fuzz/run.py TARGET SECONDS [libFuzzer options]``.

Needs atheris (``pip install atheris``). An input that raises anything but a typed error, or takes more than the memory
or time it may, ends the run and is written to ``crash-*`` in the current directory; ``run.py TARGET 0 FILE`` tries one
again. At the end one line of JSON says what was done.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import atheris  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

MODULES = ["nnlib", "csv", "gzip", "zipfile", "json", "yaml", "numpy.lib", "safetensors"]
with atheris.instrument_imports(include=MODULES):
    from targets import TARGETS, Target, check

HEADROOM = 1 << 30
"""Address space an input may take beyond what the process had at its start: a lying size fails at once."""
RSS_MB = 900
SECONDS_PER_INPUT = 30
MAX_BYTES = 8192


def main(arguments: list[str]) -> int:
    name, seconds, *rest = arguments
    began = time.monotonic()
    counts = mmap.mmap(-1, 16)  # shared with the child, so that its end, whatever it is, does not take them away
    memory = Path("/dev/shm")  # a fuzzer writes thousands of small files a second
    with tempfile.TemporaryDirectory(prefix="nnjobs-fuzz-", dir=memory if memory.is_dir() else None) as scratch:
        child = os.fork()
        if child == 0:
            tempfile.tempdir = scratch
            _fuzz(TARGETS[name], int(seconds), rest, counts)
        _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    facts = {
        "target": name,
        "inputs": int.from_bytes(counts[:8], "little"),
        "accepted": int.from_bytes(counts[8:], "little"),
        "seconds": round(time.monotonic() - began),
        "peak_rss_mb": usage.ru_maxrss // 1024,
        "exit_code": code,
    }
    print(json.dumps(facts), flush=True)
    return code


def _fuzz(target: Target, seconds: int, rest: list[str], counts: mmap.mmap) -> None:
    tried = accepted = 0

    def one(data: bytes) -> None:
        nonlocal tried, accepted
        tried += 1
        counts[:8] = tried.to_bytes(8, "little")
        accepted += check(target, data)
        counts[8:] = accepted.to_bytes(8, "little")

    seeds = target.seeds()
    for seed in seeds:
        check(target, seed)  # all that is imported late is there before memory is limited
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, resource.RLIM_INFINITY))
    options = [f"-rss_limit_mb={RSS_MB}", f"-timeout={SECONDS_PER_INPUT}"]
    if seconds:
        corpus = Path(tempfile.mkdtemp(prefix="nnjobs-corpus-"))
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        options += [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", str(corpus)]
    atheris.Setup([sys.argv[0], *options, *rest], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
