"""A worker of a group as a process of its own, for tests that do something to it.

python group_member.py FOLDER WORKER WORKERS TIMEOUT STEPS THEN: joins, exchanges STEPS times, prints a line; THEN is
``wait`` (exchange once more), ``hang`` (the main thread sleeps for ever) or ``leave``.
"""

from __future__ import annotations

import sys
import time

from nnlib.collective.curve_keys import read_keys
from nnlib.collective.join import join
from nnlib.collective.rendezvous import Rendezvous
from nnlib.storage import LocalStorage


def main() -> None:
    folder, worker, workers, timeout, steps, then = sys.argv[1:]
    storage = LocalStorage(folder, private=True)
    rendezvous = Rendezvous(storage, job="j", worker=int(worker), workers=int(workers))
    with join(rendezvous, read_keys(storage), timeout_seconds=float(timeout)) as communicator:
        for step in range(int(steps)):
            communicator.exchange([[b"%d" % step]] * int(workers))
        print("ready", flush=True)
        if then == "hang":
            time.sleep(3600)
        if then == "wait":
            communicator.exchange([[b"more"]] * int(workers))


if __name__ == "__main__":
    main()
