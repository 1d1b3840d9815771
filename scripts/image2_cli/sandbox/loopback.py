"""A small HTTP server on 127.0.0.1 that cannot be put out: whole requests in, JSON answers or refusals out.

What the sandbox stands on. Knows nothing of images, keys or tasks. Binds no other address, writes no file,
prints nothing, needs only the standard library and imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Callable
from urllib.parse import quote

MAX_BODY = 64 << 20  # bytes
LINGER_S = 2.0


class Refused(Exception):
    """The answer to a request that is not granted: an HTTP status, a code and a message, perhaps headers."""

    def __init__(self, status: int, code: str, message: str, **headers: str):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class Exchange(BaseHTTPRequestHandler):
    """One connection. Each request on it is read whole, sent to its route and answered once.

    `routes` is a tuple of (methods, path pattern, function); the function gets the exchange and the pattern's
    groups, and either sends an answer or raises `Refused`. `body` holds the request's body.
    """

    routes: tuple = ()
    server_version = "loopback"  # the Server header
    protocol_version = default_request_version = "HTTP/1.1"  # so that garbage gets a status line, too
    disable_nagle_algorithm = True  # head and body are two writes; Nagle would hold the second for 40 ms
    timeout = 60  # seconds of silence after which a connection is dropped

    def serve(self) -> None:
        try:
            self.body = self.read_body()
            path = self.path.partition("?")[0]
            for methods, pattern, function in self.routes:
                found = re.fullmatch(pattern, path)
                if found and self.command in methods:
                    return function(self, *found.groups())
                if found:
                    allowed = ", ".join(methods)
                    raise Refused(405, "method_not_allowed", f"only {allowed} here", Allow=allowed)
            raise Refused(404, "not_found", "there is nothing at this path")
        except Refused as refused:
            self.refuse(refused)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve

    def read_body(self) -> bytes:
        """The whole body. One that is not read would be taken for the next request: the connection ends."""
        keep, self.close_connection = self.close_connection, True
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or (self.command == "POST" and not lengths):
            raise Refused(411, "length_required", "send the body in one piece, with a Content-Length")
        if len(set(lengths)) > 1 or not all(re.fullmatch("[0-9]{1,18}", length) for length in lengths):
            raise Refused(400, "invalid_request", "Content-Length must be one number")
        length = int(lengths[0]) if lengths else 0
        if length > MAX_BODY:
            raise Refused(413, "payload_too_large", f"a body may have {MAX_BODY} bytes")
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refused(400, "invalid_request", "the body is shorter than its Content-Length")
        self.close_connection = keep
        return body

    def answer(self, value: dict, status: int = 200, **headers: str) -> None:
        self.send(json.dumps(value).encode("ascii"), "application/json", status, **headers)

    def send(self, content: bytes, kind: str, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, refused: Refused) -> None:
        error = {"message": str(refused), "code": refused.code}
        self.answer({"error": error}, refused.status, **refused.headers)
        if self.close_connection:
            self.linger()

    def linger(self) -> None:
        """Swallow what still comes. Closing on unread bytes is a reset, which takes the answer with it."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_S)
        end = time.monotonic() + LINGER_S
        while time.monotonic() < end and self.rfile.read1(65536):
            pass

    # The base class answers errors in HTML, names Python's version, and writes to stderr.

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.close_connection = True
        self.refuse(Refused(int(code), "invalid_request", "this is no request that can be answered"))

    def version_string(self) -> str:
        return self.server_version

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if self.server.log:
            path = quote(self.path.partition("?")[0][:200]) if self.command else "-"  # queries hold secrets
            self.server.log(f"{self.command or '-'} {path} {int(code)}")

    def log_message(self, format: str, *values: object) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    """Serves from now on, in daemon threads, until `stop()`; port 0 takes a free one. OSError: it is taken.

    `owner` is there for the routes. `log` gets one line for each request ("GET /path 200"), in its thread.
    Not http.server's own class: that asks the resolver for this machine's name before it serves.
    """

    daemon_threads = True
    request_queue_size = 128  # with the default of 5, some of a batch would wait a second to connect
    allow_reuse_address = os.name == "posix"  # on Windows it would let two servers share one port

    def __init__(
        self, exchange: type[Exchange], owner: object, port: int, log: Callable[[str], object] | None
    ):
        super().__init__(("127.0.0.1", port), exchange)
        self.owner, self.log = owner, log
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        # stop() waits for the current interval: the default of half a second would be felt at every exit.
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and hang up on those who are kept alive: their threads would go on serving."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        for connection in self._connections.copy():
            with contextlib.suppress(OSError):  # it went by itself
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: socket.socket, client_address) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: socket.socket, client_address) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is no news; a bug is
            super().handle_error(request, client_address)
