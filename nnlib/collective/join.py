"""Joining a group: bind, meet, connect."""

from __future__ import annotations

from collections.abc import Sequence

from nnlib.collective.communicator import Communicator
from nnlib.collective.curve_keys import Keys
from nnlib.collective.network import LOOPBACK
from nnlib.collective.rendezvous import Rendezvous
from nnlib.collective.solo import Solo
from nnlib.collective.zeromq import Endpoint, connect

LOOK_SECONDS = 10.0
"""Between two looks at whether the group has gone on without this task; longer in groups of hundreds, that the storage
be asked some ten times a second at most."""


def join(
    rendezvous: Rendezvous,
    keys: Keys | None,
    *,
    addresses: Sequence[str] = (LOOPBACK,),
    timeout_seconds: float = 60.0,
) -> Communicator:
    """Meet the other workers, in the first generation or after a loss in the next, and connect to them.

    ``keys``: the group's, from `nnlib.collective.curve_keys`; None sends in the clear, for a network that is trusted.
    ``addresses``: this host's, best first, see `nnlib.collective.network.own_addresses`. ``timeout_seconds``: a peer
    that is silent, or does not get on, for so long is lost.

    Raises what `Rendezvous.meet` does, and `PeerLostError`: meet again.
    """
    if rendezvous.workers == 1:
        return Solo()
    endpoint = Endpoint(addresses, keys)
    try:
        communicator = connect(endpoint, rendezvous.meet(endpoint.routes), timeout_seconds)
    except BaseException:
        endpoint.close()
        raise
    communicator.look_out(rendezvous.newer, max(LOOK_SECONDS, rendezvous.workers / 10))
    return communicator
