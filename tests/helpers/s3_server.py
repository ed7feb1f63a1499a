"""An S3 for tests: moto's, in a process of its own, that writes down every request and fails as it is asked to.

Run as a program it serves until its standard input ends, and prints its port. Its tests ask it to fail by rules, a list
of JSON objects: ``do`` is what goes wrong, ``method``, ``path`` and ``query`` are patterns that a request must match,
``skip`` such requests pass first, then ``times`` fail.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

REFUSALS = {
    "busy": (503, "SlowDown"),
    "unavailable": (503, "ServiceUnavailable"),
    "internal": (500, "InternalError"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
    "archived": (403, "InvalidObjectState"),
    "locked": (403, "AccessDenied"),
    "kms": (400, "KMS.DisabledException"),
    "conflict": (409, "ConditionalRequestConflict"),
    "no bucket": (404, "NoSuchBucket"),
    "elsewhere": (301, "PermanentRedirect"),
    "unknown key": (403, "InvalidAccessKeyId"),
    "clock": (403, "RequestTimeTooSkewed"),
    "not implemented": (501, "NotImplemented"),
}
MESSAGES = {
    "locked": "Access Denied because object protected by object lock.",
    "archived": "The operation is not valid",
}

Environ = dict[str, Any]
Start = Callable[..., Any]


class FaultyS3:
    """A WSGI application around moto's."""

    def __init__(self, inner: Callable[[Environ, Start], Iterable[bytes]]) -> None:
        self._inner = inner
        self._lock = threading.RLock()
        self._rules: list[dict[str, Any]] = []
        self._log: list[dict[str, Any]] = []
        self._written: dict[str, float] = {}

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/_test/"):
            return self._control(environ, start)
        rule = self._rule(environ)
        what = rule["do"] if rule else ""
        entry = {
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"],
            "query": environ.get("QUERY_STRING", ""),
            "headers": {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")},
            "fault": what,
        }
        with self._lock:
            self._log.append(entry)
        if what in REFUSALS:
            return _refuse(start, *REFUSALS[what], MESSAGES.get(what, what))
        if what == "drop":
            return _hang_up(environ)
        if what == "hang":
            time.sleep(float(rule["seconds"]) if rule else 0.0)
            return _hang_up(environ)
        if what == "no conditions":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if what == "torn":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            return _hang_up(environ)
        status, headers, body = self._answer(environ)
        entry["status"] = int(status[:3])
        if what == "lost":
            return _hang_up(environ)
        if what == "stale":
            assert rule is not None
            body = self._stale(body, time.monotonic() - float(rule["seconds"]))
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        if entry["method"] == "GET" and entry["status"] == 200 and "HTTP_X_AMZ_CHECKSUM_MODE" in environ:
            crc = zlib.crc32(body).to_bytes(4, "big")  # as S3 does; moto keeps none that it was not asked to compute
            headers = [*headers, ("x-amz-checksum-crc32", base64.b64encode(crc).decode())]
        if what == "damage" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        start(status, headers)
        if what == "cut":
            return _cut(environ, body[: len(body) // 2])
        return [body]

    def _answer(self, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
        got: list[Any] = []
        with self._lock:  # moto has no transactions
            body = b"".join(self._inner(environ, lambda status, headers, _=None: got.extend((status, headers))))
            if environ["REQUEST_METHOD"] in ("PUT", "POST") and str(got[0]).startswith("2"):
                self._written.setdefault(environ["PATH_INFO"].split("/", 2)[-1], time.monotonic())
        return got[0], got[1], body

    def _stale(self, body: bytes, before: float) -> bytes:
        """A listing without what was first written after a moment."""
        young = [key for key, at in self._written.items() if at > before]
        old = [key for key, at in self._written.items() if at <= before]

        def kept(match: re.Match[bytes]) -> bytes:
            key = match[2].decode()
            if match[1] == b"Contents":
                return b"" if key in young else match[0]
            return match[0] if any(each.startswith(key) for each in old) else b""

        pattern = rb"<(Contents|CommonPrefixes)>\s*<(?:Key|Prefix)>(.*?)</(?:Key|Prefix)>.*?</\1>"
        return re.sub(pattern, kept, body, flags=re.DOTALL)

    def _rule(self, environ: Environ) -> dict[str, Any] | None:
        with self._lock:
            for rule in self._rules:
                if not (
                    re.search(rule.get("method", ""), environ["REQUEST_METHOD"])
                    and re.search(rule.get("path", ""), environ["PATH_INFO"])
                    and re.search(rule.get("query", ""), environ.get("QUERY_STRING", ""))
                ):
                    continue
                if rule.get("skip", 0) > 0:
                    rule["skip"] -= 1
                elif rule.get("times", 1 << 30) > 0:
                    rule["times"] = rule.get("times", 1 << 30) - 1
                    return rule
        return None

    def _control(self, environ: Environ, start: Start) -> Iterable[bytes]:
        with self._lock:
            if environ["REQUEST_METHOD"] == "POST":
                self._rules = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                self._log.clear()
            body = json.dumps(self._log).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def _refuse(start: Start, status: int, code: str, message: str) -> Iterable[bytes]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    if code == "PermanentRedirect":
        headers.append(("x-amz-bucket-region", "eu-west-3"))
    start(f"{status} X", headers)
    return [body]


def _hang_up(environ: Environ) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionError


def _cut(environ: Environ, half: bytes) -> Iterable[bytes]:
    yield half
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionError


def main() -> None:
    """Serve until standard input ends."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    server = make_server("127.0.0.1", 0, FaultyS3(DomainDispatcherApplication(create_backend_app)), threaded=True)
    print(server.port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
