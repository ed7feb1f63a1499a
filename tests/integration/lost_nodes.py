"""Nodes that are lost while a run trains on them: in which mode, how, and what becomes of the run.

All workers stop in the midst of their training; then one node is hurt, and all that can goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGSTOP
from typing import Any

from failures import wait_until
from host_cluster import HostCluster
from host_scene import HostScene
from hosts import Host
from scene import MINUTES

MODES: dict[str, dict[str, Any]] = {
    "rounds": {"train": {"epochs": 1, "epochs_per_round": 1, "batch_size": 16}, "sync": {"mode": "rounds"}},
    "collective": {
        "train": {"epochs": 16, "epochs_per_round": 1, "batch_size": 8},
        "checkpoint": {"every": 2},
        "sync": {"mode": "collective"},
    },
}
STOPPED_IN = {"rounds": ("train-0", 0), "collective": ("collective-0", 6)}
"""Phase and round (from 0) in which the workers stop: a group behind its third commit."""

RETURN_SECONDS = 15.0
WORKERS = 3


def lose_datanode(cluster: HostCluster, host: Host) -> None:
    cluster.kill_daemon(host, "datanode")


def lose_nodemanager(cluster: HostCluster, host: Host) -> None:
    cluster.kill_daemon(host, "nodemanager")


def come_back(cluster: HostCluster, host: Host) -> None:
    """Cut the link for a while."""
    host.unplug()
    threading.Timer(RETURN_SECONDS, host.plug_in).start()


def restart(cluster: HostCluster, host: Host) -> None:
    """Switch the host off and on: all its processes are lost, its disk too, and its daemons start again."""
    host.switch_off()
    cluster.switch_on(host)


FAULTS: dict[str, Callable[[HostCluster, Host], object]] = {
    "link cut": lambda cluster, host: host.unplug(),
    "link cut for 15 s": come_back,
    "switched off": lambda cluster, host: host.switch_off(),
    "switched off and on": restart,
    "processes stopped": lambda cluster, host: host.kill(number=SIGSTOP),
    "slow": lambda cluster, host: host.slow_down(),
    "containers killed": lambda cluster, host: host.kill("container_"),
    "NodeManager killed": lose_nodemanager,
    "DataNode killed": lose_datanode,
    "disk full": lambda cluster, host: host.fill_disk(),
    "disk read-only": lambda cluster, host: host.protect_disk(),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its model, the seconds from the fault until all workers trained again, and to its end."""

    model: str
    gap: float
    rest: float


def lose(
    cluster: HostCluster, folder: Path, mode: str, fault: str, *, with_master: bool = False, **experiment: Any
) -> Outcome:
    """Hurt a node on which a worker of a run trains: that of the job's master too, or another one."""
    run = HostScene(cluster, folder, {**MODES[mode], **experiment})
    phase, round_ = STOPPED_IN[mode]
    first = [f"{phase}-m-{task}-0" for task in range(WORKERS)]
    run.want(*first, round_=round_)
    try:
        run.start()
        where = [run.stopped(name) for name in first]
        master = cluster.master_host(run.application())
        host = master if with_master else next(host for host, _ in where if host is not master)
        if mode == "rounds":  # of the attempts that replace the lost ones, those of a second master's count from 1000
            run.want(*(name[:-1] + number for name in first for number in ("1", "1000")))
        began = time.monotonic()
        FAULTS[fault](cluster, host)
        run.go_on(*(process for _, process in where))
        gap = _until_all_train(run, mode, began)
        return Outcome(run.result(), gap, time.monotonic() - began)
    finally:
        run.close()
        cluster.heal()


def _until_all_train(run: HostScene, mode: str, began: float) -> float:
    """Seconds from ``began`` until all workers train, if any had to be replaced; 0 if none had."""
    seconds = 0.0

    def has_gone_on() -> bool:
        nonlocal seconds
        if run.has_ended:
            return True
        if mode == "collective":
            if run.generation() < 2:
                return False
            seconds = time.monotonic() - began
            return True
        for process in run.newly_stopped():
            seconds = time.monotonic() - began
            run.go_on(process)
        return False

    wait_until(has_gone_on, "the run goes on", 2 * MINUTES)
    return seconds
