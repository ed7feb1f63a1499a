"""Connections to Hadoop's web services: one form for WebHDFS and YARN's pages, with or without Kerberos."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

import requests
from requests.auth import AuthBase

from nnlib.storage.hdfs.ticket import negotiation
from nnlib.storage.hdfs.tokens import hdfs_token, task_tokens

CONNECTIONS = 8


@dataclass(frozen=True)
class Login:
    """Who we are for a service: ``parameters`` of its addresses, and whether requests are signed with our ticket when
    the service asks for it (``negotiates``)."""

    parameters: dict[str, str] = field(default_factory=dict, repr=False)
    negotiates: bool = False

    def auth(self) -> AuthBase | None:
        """Return what signs one request."""
        return negotiation() if self.negotiates else None


def has_task_token() -> bool:
    """Return whether this process is a task of a job that has delegation tokens, and so needs no ticket."""
    return bool(task_tokens())


def hdfs_login(authority: str, user: str, *, kerberos: bool) -> Login:
    """Return how an HDFS knows us: without Kerberos by the name of the ``user``, in a job's task by its token, else by
    the ticket of this process."""
    if not kerberos:
        return Login({"user.name": user})
    if tokens := task_tokens():
        return Login({"delegation": hdfs_token(tokens, authority).to_url()})
    return Login(negotiates=True)


class HadoopConnection:
    """A session of HTTP connections, which threads share and a forked process makes anew. ``certificates`` is the file
    of those to trust for https; None: the system's."""

    def __init__(self, certificates: str | None) -> None:
        self._certificates = certificates
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        self._process = 0

    def session(self) -> requests.Session:
        """Return the session of this process."""
        with self._lock:
            if self._session is None or self._process != os.getpid():
                session = requests.Session()
                session.trust_env = False  # a proxy for the world outside does not lead to the cluster
                session.verify = self._certificates or True
                adapter = requests.adapters.HTTPAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS)
                session.mount("http://", adapter)
                session.mount("https://", adapter)
                self._session, self._process = session, os.getpid()
            return self._session
