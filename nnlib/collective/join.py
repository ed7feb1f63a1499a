"""Joining a group: bind sockets, wait for the other workers, connect to them."""

from __future__ import annotations

from collections.abc import Sequence

from nnlib.collective.communicator import Communicator
from nnlib.collective.curve_keys import Keys
from nnlib.collective.endpoint import Endpoint
from nnlib.collective.network import LOOPBACK
from nnlib.collective.rendezvous import Rendezvous
from nnlib.collective.solo import Solo
from nnlib.collective.zeromq import connect

GENERATION_CHECK_SECONDS = 10.0
"""How often a worker checks whether the group has moved on to a newer generation without it. Groups of hundreds check
less often, so that the storage gets some ten requests a second at most."""


def join(
    rendezvous: Rendezvous,
    keys: Keys | None,
    *,
    addresses: Sequence[str] = (LOOPBACK,),
    timeout_seconds: float = 60.0,
) -> Communicator:
    """Join the next generation of a group and return a communicator that is connected to all other workers.

    ``keys``: the group's, from `nnlib.collective.curve_keys`; None sends without encryption, for a trusted network.
    ``addresses``: this host's, best first, see `nnlib.collective.network.host_addresses`. ``timeout_seconds``: a peer
    that is silent, or makes no progress, for so long is lost.

    Raises what `Rendezvous.join_generation` raises, and `PeerLostError` for peers that cannot be reached: join again.
    """
    if rendezvous.workers == 1:
        return Solo()
    endpoint = Endpoint(addresses, keys)
    try:
        communicator = connect(endpoint, rendezvous.join_generation(endpoint.routes), timeout_seconds)
    except BaseException:
        endpoint.close()
        raise
    communicator.watch_generations(rendezvous.workers_ahead, max(GENERATION_CHECK_SECONDS, rendezvous.workers / 10))
    return communicator
