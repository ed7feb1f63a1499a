"""Kerberos without a KDC: the packages of the extra ``kerberos``, played, and a web service that wants SPNEGO."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import requests
from requests.auth import AuthBase


class PlayedTicket:
    """What ``kinit`` got: ``principal`` (None: nothing) and the ``seconds`` that are left."""

    def __init__(self) -> None:
        self.principal: str | None = "ann@HOSTS.TEST"
        self.seconds = 3600.0
        self.realm = "HOSTS.TEST"

    @property
    def is_good(self) -> bool:
        return self.principal is not None and self.seconds > 0


def install(patch: pytest.MonkeyPatch) -> PlayedTicket:
    """Put the played packages in place of the real ones."""
    from nnlib.storage.hdfs import ticket  # late: conftest.py imports this file before it sets BLAS's variables

    played = PlayedTicket()

    class GSSError(Exception):
        pass

    class ExpiredCredentialsError(GSSError):
        pass

    class Credentials:
        def __init__(self, usage: str) -> None:
            assert usage == "initiate"
            if played.principal is None:
                raise GSSError("No Kerberos credentials available")

        @property
        def name(self) -> str | None:
            if played.seconds <= 0:
                raise ExpiredCredentialsError
            return played.principal

        @property
        def lifetime(self) -> int:
            return int(played.seconds)

    class Name:
        def __init__(self, text: str, kind: str) -> None:
            self.text = text

        def canonicalize(self, mechanism: str) -> str:
            return f"{self.text}@{played.realm}"

    class HTTPSPNEGOAuth(AuthBase):
        def __call__(self, request: Any) -> Any:
            request.register_hook("response", self.answer)
            return request

        def answer(self, response: requests.Response, **options: Any) -> requests.Response:
            if response.status_code != 401 or not played.is_good:
                return response
            assert response.content is not None  # read to its end
            response.request.headers["Authorization"] = f"Negotiate {played.principal}"
            again: requests.Response = response.connection.send(response.request, **options)
            return again

    gssapi, package = ModuleType("gssapi"), ModuleType("requests_gssapi")
    errors = ModuleType("gssapi.exceptions")
    errors.__dict__.update(GSSError=GSSError, ExpiredCredentialsError=ExpiredCredentialsError)
    kinds = type("Kinds", (), {"kerberos_principal": "", "kerberos": ""})
    gssapi.__dict__.update(Credentials=Credentials, Name=Name, NameType=kinds, MechType=kinds, exceptions=errors)
    package.__dict__.update(HTTPSPNEGOAuth=HTTPSPNEGOAuth)
    for module in (gssapi, package):
        module.__spec__ = ModuleSpec(module.__name__, None)
        patch.setitem(sys.modules, module.__name__, module)
    ticket._spnego.cache_clear()
    return played


@pytest.fixture
def played_ticket(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedTicket]:
    """A good ticket of ann; the test may change it. No thread renews it."""
    from nnlib.storage.hdfs import ticket  # late, as above

    monkeypatch.setattr("nnlib.storage.hdfs.webhdfs.keep_ticket", lambda: None)
    yield install(monkeypatch)
    ticket._spnego.cache_clear()


class Guarded(BaseHTTPRequestHandler):
    """Answers who asks: by SPNEGO, or by the parameter ``delegation``; else 401."""

    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        who = self.headers.get("Authorization", "").removeprefix("Negotiate ")
        self.seen.append((self.path, who))
        if not who and "delegation=" not in self.path:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Negotiate")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = json.dumps({"who": who, "FileStatuses": {"FileStatus": []}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal."""


@pytest.fixture
def guarded() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The address of a service that wants SPNEGO, and the paths and users that it has seen."""
    seen: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Guarded,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
