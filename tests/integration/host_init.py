"""The first process of a host (`hosts`): it makes the host's folders, says so on standard output and waits.

    python host_init.py NAME HOSTS_FILE NODE_FOLDER NODE_POINT DISK_MB KEPT...

It runs in namespaces of its own. As their process 1 it also lets the kernel clear away processes that lost their
parents; when it ends, all processes of the host end.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

TMP = Path("/tmp")


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def make_tmp(kept: list[Path]) -> None:
    """Give the host an empty /tmp, but for the folders that are ``kept``."""
    private = TMP / f"tmp-of-{socket.gethostname()}"
    private.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", private)
    for folder in kept:
        if folder.is_relative_to(TMP):
            copy = private / folder.relative_to(TMP)
            copy.mkdir(parents=True, exist_ok=True)
            mount("--rbind", folder, copy)
    mount("--move", private, TMP)


def main() -> None:
    name, hosts, folder, point, disk_mb, *kept = sys.argv[1:]
    socket.sethostname(name)
    mount("--bind", hosts, "/etc/hosts")
    mount("--bind", folder, point)
    if int(disk_mb):
        mount("-t", "tmpfs", "-o", f"size={disk_mb}m", "tmpfs", f"{point}/disk")
    make_tmp([Path(path) for path in kept])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
