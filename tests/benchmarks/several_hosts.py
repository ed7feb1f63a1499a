"""What a Hadoop of three worker hosts costs: a round, a collective job, an all-reduce through a slow link, lost nodes.

    python tests/benchmarks/several_hosts.py [--parts round collective allreduce lost] [--repeats N]

Hosts are namespaces of this machine, with networks of their own (tests/integration/hosts.py); this needs root. The
round and the collective job are those of `hadoop_round` and `hadoop_collective`, started on a client's host: containers
spread over the hosts, as Hadoop's own scheduler spreads them. The all-reduce of 42,000 floats runs between four hosts
whose links take 1 ms, once over gloo and once encrypted by ours, in turns. A node is lost by `lost_nodes`: the seconds
from its loss until all workers train again.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, so before their imports

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("integration", "helpers"))]

from allreduce import SMALL, communicator, gloo, ours, timed  # noqa: E402
from record import record  # noqa: E402

LINK_SECONDS = 0.001
STEPS = 20
AT_MOST = {"round": 0.8, "collective": 1.25, "allreduce": 1.5}
LOST_AT_MOST = 60.0
"""Seconds until all train again, besides the time after which YARN takes a node for lost."""
LOST = [
    (mode, fault, with_master)
    for mode in ("rounds", "collective")
    for fault, with_master in (
        ("link cut", False),
        ("switched off", True),
        ("containers killed", False),
        ("NodeManager killed", False),
        ("DataNode killed", False),
        ("disk full", False),
        ("disk read-only", False),
    )
]


def on_client(cluster: Any, code: str) -> Any:
    """Run code on the client's host; return the object that it prints as JSON."""
    folders = (HERE, HERE.parent / "integration", HERE.parent / "helpers", HERE.parents[1])
    environment = {**os.environ, **cluster.environment(), "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = cluster.client.command("env", "-C", str(cluster.network.folder), sys.executable, "-c", code)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def round_(cluster: Any, repeats: int) -> dict[str, Any]:
    code = f"import json, hadoop_round; print(json.dumps(hadoop_round.measure({repeats})))"
    result = on_client(cluster, code)
    return {"ratio": result["ratio_containers"], **result}


def collective(cluster: Any, repeats: int) -> dict[str, Any]:
    code = f"import json, hadoop_collective; print(json.dumps(hadoop_collective.measure([4], [500], {repeats}, None)))"
    result: dict[str, Any] = on_client(cluster, code)
    return result


def allreduce(cluster: Any, repeats: int) -> dict[str, Any]:
    """Four hosts, each with a rank of a gloo group and of one of ours."""
    names = ["m0", "w1", "w2", "w3"]
    network = cluster.network
    with network.slow_links(LINK_SECONDS), tempfile.TemporaryDirectory(dir=network.folder) as folder:
        processes = [
            subprocess.Popen(
                network[name].command(
                    sys.executable, Path(__file__), "--rank", f"{rank} {len(names)} {folder} {repeats}"
                ),
                env={**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "RANK_ADDRESS": network[name].address},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, name in enumerate(names)
        ]
        found = [json.loads(process.communicate(timeout=600)[0].splitlines()[-1]) for process in processes]
    turns = range(repeats)
    seconds = {kind: [max(each[kind][turn] for each in found) for turn in turns] for kind in found[0]}
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {"ratio": medians["encrypted"] / medians["gloo"], "seconds": seconds, "medians": medians}


def rank(number: int, ranks: int, folder: str, repeats: int) -> None:
    """One rank: gloo and ours in turns; the first turn is burn-in."""
    import torch.distributed

    from nnlib.collective.curve_keys import make_keys
    from nnlib.storage import LocalStorage

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=number, world_size=ranks)
    if number == 0:
        make_keys(LocalStorage(folder, private=True))
    torch.distributed.barrier()
    found: dict[str, list[float]] = {"gloo": [], "encrypted": []}
    addresses = [os.environ["RANK_ADDRESS"]]
    with communicator(folder, number, ranks, encrypted=True, addresses=addresses) as group:
        steps = {"gloo": gloo(SMALL), "encrypted": ours(group, SMALL)}
        for turn in range(repeats + 1):
            for kind, step in steps.items():
                torch.distributed.barrier()
                seconds, _ = timed(step, STEPS)
                if turn:
                    found[kind].append(seconds)
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    print(json.dumps(found))


def lost(cluster: Any, repeats: int) -> dict[str, Any]:
    """The seconds until all train again after every kind of loss; each once, however many ``repeats``."""
    from host_cluster import EXPIRY_SECONDS
    from host_scene import BASE, DATA
    from lost_nodes import MODES, lose
    from scene import inline, write_data

    os.environ["HADOOP_CONF_DIR"] = str(cluster.conf)
    cluster.client.visit(write_data, DATA)
    with tempfile.TemporaryDirectory(dir=cluster.network.folder) as folder:
        local = f"{folder}/rows"
        write_data(local)
        models = {}
        for mode, keys in MODES.items():
            (Path(folder) / mode).mkdir()
            models[mode] = inline({**BASE, **keys, "data": {"path": local}}, Path(folder) / mode)
        losses: list[dict[str, Any]] = []
        for number, (mode, fault, with_master) in enumerate(LOST):
            place = Path(folder) / f"run-{number}"
            place.mkdir()
            outcome = lose(cluster, place, mode, fault, with_master=with_master)
            if outcome.model != models[mode]:
                raise RuntimeError(f"{mode}, {fault}: another model than inline")
            losses.append({"mode": mode, "fault": fault, "with_master": with_master, "gap": round(outcome.gap, 1)})
            print(losses[-1], file=sys.stderr, flush=True)
    slowest = max(loss["gap"] for loss in losses)
    return {"ratio": slowest / (LOST_AT_MOST + EXPIRY_SECONDS), "expiry_seconds": EXPIRY_SECONDS, "losses": losses}


PARTS = {"round": round_, "collective": collective, "allreduce": allreduce, "lost": lost}


def measure(parts: list[str], repeats: int) -> dict[str, Any]:
    from host_cluster import CLIENT, MASTER, WORKERS, HostCluster
    from hosts import Network

    with tempfile.TemporaryDirectory(prefix="hosts-") as folder:
        kept = [Path.home() / ".cache"]
        with Network(Path(folder), [MASTER, *WORKERS, CLIENT], kept=kept) as network:
            cluster = HostCluster(network)
            cluster.start()
            found = {part: PARTS[part](cluster, repeats) for part in parts}
    held = {part: found[part]["ratio"] <= AT_MOST.get(part, 1.0) for part in parts}
    return {**found, "at_most": AT_MOST, "load_average": os.getloadavg()[0], "held": all(held.values())}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.rank:
        number, ranks, folder, repeats = chosen.rank.split()
        rank(int(number), int(ranks), folder, int(repeats))
        return 0
    result = measure(chosen.parts, chosen.repeats)
    record("several_hosts", result)
    print(json.dumps(result))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
