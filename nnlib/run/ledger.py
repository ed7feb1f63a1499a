"""The ledger: one canonical JSON line a round, each chained to the one before.

A line holds only what the run's mathematics decides (no times, hosts or attempts), so a run that was killed, retried
or moved has the ledger of one that was not. It names its predecessor by hash: whoever changes a line must change all
lines behind it, and whoever recomputes a round must arrive at its hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.run.round_length import drained_round
from nnlib.run.spec import JobSpec


def canonical(data: Mapping[str, Any]) -> bytes:
    """Sorted keys, no spaces, no NaN, one line: equal data, equal bytes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ledger_line(facts: Mapping[str, Any], files: Mapping[str, bytes], previous: bytes | None) -> bytes:
    """A round's line: its facts, the hashes of what it committed, the hash of the line before (None for round 0)."""
    hashes = {name: digest(data) for name, data in files.items()}
    chain = None if previous is None else digest(previous)
    return canonical({"format_version": FORMAT_VERSION, **facts, "files": hashes, "previous": chain})


def first_facts(spec: JobSpec, parent: Mapping[str, Any] | None) -> dict[str, Any]:
    """Facts of round 0: what the run is made of. ``parent`` names the run that a warm start came from."""
    return {
        **_common(spec, 0),
        "seed": spec.config.seed,
        "splits": [trial.split for trial in spec.trials],
        "folds": [trial.fold for trial in spec.trials],
        "trials": digest(canonical({"trials": [trial.to_json() for trial in spec.trials]})),
        "shards": {shard.name: shard.sha256 for shard in spec.dataset.shards},
        "parent": parent,
    }


def round_facts(
    spec: JobSpec, round_: int, epochs: range, entries: Sequence[Mapping[str, Any]], kernels: Sequence[str]
) -> dict[str, Any]:
    """Facts of a later round: which epochs were trained, from how many examples, how far the workers went apart, and
    which were missing (a quorum's round is not the one that all workers would have made). With ``sync.overlap``:
    whether the round was waited for, or averaged while the next one trained."""
    trials = []
    for entry in entries:
        training = entry["training"]
        workers = [] if training is None else training["workers"]
        trials.append(
            {
                "trial": entry["trial"],
                "status": entry["status"],
                "examples": [worker["examples"] for worker in workers],
                "drift": [worker["drift"]["relative"] for worker in workers],
                "cosine": [worker["drift"]["cosine"] for worker in workers],
                **({"missing": entry["missing"]["workers"]} if "missing" in entry else {}),
            }
        )
    return {
        **_common(spec, round_),
        "epochs": [epochs.start, epochs.stop],
        "numerics": list(kernels),
        "trials": trials,
        **({"drained": drained_round(spec.config, round_) == round_} if spec.config.sync.overlap else {}),
    }


def _common(spec: JobSpec, round_: int) -> dict[str, Any]:
    return {
        "round": round_,
        "config": spec.config_hash,
        "dataset": spec.dataset.fingerprint,
        "workers": spec.config.workers,
    }
