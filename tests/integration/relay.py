"""A slow and lossy link, for kernels that cannot delay packets themselves (tc's netem): it passes Ethernet frames on.

    python relay.py SECONDS LOSS SWITCH_PROCESS NAME:HOST_PROCESS:ADDRESS...

Each host's link to the switch is replaced by two virtual devices; this process carries frames between them. What a host
sends comes ``SECONDS`` later or, with the probability ``LOSS``, never. It runs until it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, TAP, NO_HEADER = 0x400454CA, 0x0002, 0x1000
FRAME, AT_ONCE = 65536, 64
LIBC = ctypes.CDLL(None, use_errno=True)


def virtual_device(process: int, name: str, home: int) -> int:
    """Make a device in the network of a process; return the descriptor of its other end."""
    there = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    assert LIBC.setns(there, 0) == 0, "cannot enter a host's network"
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_HEADER))
    assert LIBC.setns(home, 0) == 0
    os.close(there)
    return device


def ip(process: int, *arguments: str) -> None:
    """Run ``ip`` in the network of a process."""
    subprocess.run(["nsenter", "-t", str(process), "-n", "ip", *arguments], check=True)


def replace_link(switch: int, name: str, host: int, address: str, home: int) -> tuple[int, int]:
    """Return the descriptors of the host's new device and of the switch's."""
    ip(host, "link", "delete", "eth0")
    near, far = virtual_device(host, "eth0", home), virtual_device(switch, name, home)
    ip(switch, "link", "set", name, "master", "bridge")
    ip(switch, "link", "set", name, "up")
    ip(host, "addr", "add", f"{address}/24", "dev", "eth0")
    ip(host, "link", "set", "eth0", "up", "txqueuelen", "10000")
    return near, far


def carry(outgoing: dict[int, int], incoming: dict[int, int], seconds: float, loss: float) -> None:
    """Pass frames on for ever: those from ``outgoing`` devices late or never, those from ``incoming`` ones at once."""
    late: list[tuple[float, int, int, bytes]] = []
    number = 0
    draw = random.Random(0).random
    while True:
        now = time.monotonic()
        while late and late[0][0] <= now:
            _, _, device, frame = heapq.heappop(late)
            send(device, frame)
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for device in select.select([*outgoing, *incoming], [], [], wait)[0]:
            for _ in range(AT_ONCE):
                try:
                    frame = os.read(device, FRAME)
                except OSError:
                    break
                if device in incoming:
                    send(incoming[device], frame)
                elif draw() >= loss:
                    number += 1
                    heapq.heappush(late, (time.monotonic() + seconds, number, outgoing[device], frame))


def send(device: int, frame: bytes) -> None:
    with contextlib.suppress(OSError):  # the other end is down: the frame is lost
        os.write(device, frame)


def main() -> None:
    seconds, loss, switch, *hosts = sys.argv[1:]
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    pairs = []
    for host in hosts:
        name, process, address = host.split(":")
        pairs.append(replace_link(int(switch), name, int(process), address, home))
    print("ready", flush=True)
    carry(dict(pairs), {far: near for near, far in pairs}, float(seconds), float(loss))


if __name__ == "__main__":
    main()
