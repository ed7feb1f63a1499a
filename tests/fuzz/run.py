"""Coverage-guided fuzzing: ``python tests/fuzz/run.py TARGET [SECONDS] [libFuzzer options]``.

Needs atheris (``pip install atheris``). An input that raises anything but a typed error, or takes more than the memory
or time it may, ends the run and is written to ``crash-*`` in the current directory; ``run.py TARGET 0 FILE`` tries one
again. At the end one line of JSON says what was done.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import atheris  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))

MODULES = ["nnlib", "csv", "gzip", "zipfile", "json", "yaml", "numpy.lib", "scipy.io.matlab", "safetensors"]
with atheris.instrument_imports(include=MODULES):
    from fuzz.targets import TARGETS, check

HEADROOM = 1 << 30
"""Address space an input may take beyond what the process had at its start: a lying size fails at once."""
RSS_MB = 900
SECONDS_PER_INPUT = 30
MAX_BYTES = 8192


def main(arguments: list[str]) -> None:
    name, seconds, *rest = [*arguments, "60"][: max(2, len(arguments))]
    target = TARGETS[name]
    tried = accepted = 0
    began = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal tried, accepted
        tried += 1
        accepted += check(target, data)

    def report() -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        facts = {"target": name, "inputs": tried, "accepted": accepted, "peak_rss_mb": round(peak)}
        print(json.dumps({**facts, "seconds": round(time.monotonic() - began)}), flush=True)

    seeds = target.seeds()
    for seed in seeds:
        one(seed)  # all that is imported late is there before memory is limited
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, resource.RLIM_INFINITY))
    options = [f"-rss_limit_mb={RSS_MB}", f"-timeout={SECONDS_PER_INPUT}", "-print_final_stats=0"]
    if int(seconds):
        corpus = Path(tempfile.mkdtemp(prefix=f"nnjobs-corpus-{name}-"))
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        options += [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", str(corpus)]
    atexit.register(report)
    atheris.Setup([sys.argv[0], *options, *rest], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
