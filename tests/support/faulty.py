"""A service on loopback that does every fault a network can do, and counts what it was asked.

Plain sockets and threads, no HTTP library: a test must be able to say "77 bytes of the answer, then a reset".
What is said stands in `answers`; tests import both from here. Nothing here imports the tool.

    with Service() as service:                       # a healthy service; the fixture `service` is this
        service.on_post(reset(), ok("t-1"))          # a queue: a reset, then accepted; the last one repeats
        service.on_poll(pending(40), cut(completed(), -1), completed())
        service.on_file(page(200), picture(png(64, 64)))
        service.on_file(cut(ranged(data), 9000), ranged(data), of="task-1-0.png")  # a queue of its own
        ...
        assert 1 == service.orders                   # orders the service would charge

`on_post`, `on_poll` and `on_file` take answers, or callables `(request) -> Answer`, which may block and may
assert: what they raise is raised again when the service is closed. Unscripted: the healthy service of `answers`.
`of` gives one task (its id) or one file (the last step of its path) a queue of its own.

What came in: `requests`, and by kind `posts`, `polls`, `files`. `received` counts the POSTs read whole, `orders`
those meant as accepted: 2xx, or a fault after the reading (the worst case), unless the answer says `accepted=`.
`wait_for("poll", 2)` blocks until the second poll has come.

Answers: ok, pending, completed, failed, sync_completed, picture, ranged, page, refuse, redirect, and the faults
cut, reset, hang, drip, which take an answer to spoil. Each changes with `.but(...)`: `ok().but(delay=2)`,
`page(502).but(accepted=True)`, `picture().but(content_length=None)`; `Answer` names them all.

`Service(tls=context)` speaks TLS; `base_url=` gives it another name, reached through
`ConnectProxy(service.address)`: `url` is the proxy to set, `connects` are the targets asked for, in order.
`closed_port()` and `full_backlog()` give a base URL that refuses, and one that never connects.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from answers import *  # noqa: F403  so that tests import what is said and who says it from one place
from answers import FILE, HEALTHY, TASK, Answer, Request, Said


class _Server:
    """Accepts on loopback, one thread a connection, until its end, which ends every one of them at once."""

    def __init__(self, tls: ssl.SSLContext | None = None):
        self.tls, self.connections = tls, 0
        self.requests: list[Request] = []
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._sockets, self._threads, self._troubles = set(), [], []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = self._listener.getsockname()

    def __enter__(self) -> Any:
        self._start(self._accept)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self.address, 1).close()  # wakes accept(), on every platform
        self._threads[0].join(5)
        self._listener.close()
        for sock in list(self._sockets):
            _shutdown(sock, socket.SHUT_RDWR)  # wakes whoever reads or writes it
        for thread in self._threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in self._threads), "a thread of the service outlived it"
        if self._troubles and kind is None:
            raise self._troubles[0]

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            sock = self._listener.accept()[0]
            if self._stop.is_set():
                sock.close()
                return
            self.connections += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):  # a client that went away before TLS began
                if self.tls:
                    sock = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self._sockets.add(sock)
                self._start(self._converse, sock)

    def _converse(self, sock: Any) -> None:
        try:
            if self.tls:
                sock.do_handshake()
            self._serve(sock, bytearray())
        except OSError:
            pass  # the client went away, or this is the end: both are everyday life here
        finally:
            self._sockets.discard(sock)
            sock.close()

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise ConnectionAbortedError("the service ends")

    def _note(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()


class Service(_Server):
    """See the top of this file."""

    def __init__(self, tls: ssl.SSLContext | None = None, base_url: str | None = None):
        super().__init__(tls)
        self.base_url = base_url or f"{'https' if tls else 'http'}://127.0.0.1:{self.address[1]}"
        self._script: dict[str, list] = {kind: [answer] for kind, answer in HEALTHY.items()}
        self._orders: dict[str, dict] = {}  # by the ids of their tasks
        self._numbers = itertools.count(1)

    def on_post(self, *answers: Said) -> None:
        self._script["post"] = list(answers)

    def on_poll(self, *answers: Said, of: str = "") -> None:
        self._script[f"poll {of}" if of else "poll"] = list(answers)

    def on_file(self, *answers: Said, of: str = "") -> None:
        self._script[f"file {of}" if of else "file"] = list(answers)

    posts = property(lambda self: self._of("post"))
    polls = property(lambda self: self._of("poll"))
    files = property(lambda self: self._of("file"))
    received = property(lambda self: sum(request.whole for request in self.posts))
    orders = property(lambda self: sum(request.accepted for request in self.posts))

    def _of(self, kind: str) -> list[Request]:
        return [request for request in list(self.requests) if request.kind == kind]

    def wait_for(self, kind: str, count: int = 1, timeout: float = 10) -> Request:
        """The `count`-th request of a kind, as soon as it has come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self._of(kind)) >= count, timeout)
        assert came, f"the service saw {len(self._of(kind))} of {count} {kind} in {timeout} s"
        return self._of(kind)[count - 1]

    def _serve(self, sock: socket.socket, buffer: bytearray) -> None:
        while head := _read_head(sock, buffer):
            request, answer = self._admit(*head)
            early = isinstance(answer, Answer) and answer.before_read
            if not early:
                self._read_body(sock, buffer, request)
            self._note(request)
            if not (early or request.whole):
                return  # the client went away in the middle of its request
            try:
                answer = answer if isinstance(answer, Answer) else answer(request)
                data = answer.wire(request)
            except BaseException as trouble:  # a test's own callable failed: not to be lost in a thread
                self._troubles.append(trouble)
                return
            if request.kind == "post" and request.whole:
                request.accepted = answer.takes_the_order
                self._orders[request.task_id] = request.order
            self._send(sock, data, answer, request)
            if not answer.keeps_alive(request):
                self._end(sock, data, answer)
                return

    def _admit(self, method: str, path: str, headers: dict) -> tuple[Request, Said]:
        """Which kind of request this is, and whose turn in the script."""
        poll, file = re.search(TASK, path), re.search(FILE, path)
        kind = "post" if method == "POST" else "other" if method != "GET" else "poll" if poll else "file"
        request = Request(kind, method, path, headers, at=time.monotonic(), base_url=self.base_url)
        own = f"{kind} {path.partition('?')[0].rpartition('/')[2]}"
        with self._changed:
            script = self._script.get(own) or self._script[kind]
            answer = script.pop(0) if len(script) > 1 else script[0]
            if kind == "post":
                request.task_id = f"task-{next(self._numbers)}"
        if found := poll or file:
            request.task_id = found[1]
            request.order = self._orders.get(request.task_id, {})
        return request, answer

    def _read_body(self, sock: socket.socket, buffer: bytearray, request: Request) -> None:
        length = int(request.headers.get("content-length", 0))
        while len(buffer) < length and (piece := sock.recv(65536)):
            buffer += piece
        request.body, request.whole = bytes(buffer[:length]), len(buffer) >= length
        del buffer[:length]
        if request.kind == "post" and request.whole:
            with contextlib.suppress(ValueError):
                request.order = request.json if isinstance(request.json, dict) else {}

    def _send(self, sock: socket.socket, data: bytes, answer: Answer, request: Request) -> None:
        while answer.until and not answer.until.wait(0.02):
            self._pause(0)
        self._pause(answer.delay)
        size, seconds = answer.drip or (1 << 16, 0)
        for start in range(0, len(data), size):
            self._pause(seconds if start else 0)
            piece = data[start : start + size]
            sock.sendall(piece)
            request.sent += len(piece)
        self._pause(answer.hang or 0)

    def _end(self, sock: socket.socket, data: bytes, answer: Answer) -> None:
        if answer.reset:
            time.sleep(0.02 if data else 0)  # let the client read what was sent: an RST overtakes it
            reset_at_close(sock)
        elif answer.before_read:  # closing with unread bytes would be a reset
            _shutdown(sock, socket.SHUT_WR)
            sock.settimeout(0.5)
            while sock.recv(65536):
                pass
        elif self.tls and not answer.is_fault:
            sock.settimeout(0.5)
            sock.unwrap()  # a healthy end says goodbye, a cut does not


class ConnectProxy(_Server):
    """An HTTP proxy that knows only CONNECT and leads every target to one address; None: it hangs up."""

    def __init__(self, to: tuple[str, int] | None, status: int = 200, silence: float | None = None):
        super().__init__()
        self.to, self.status, self.silence = to, status, silence
        self.url = f"http://127.0.0.1:{self.address[1]}"

    connects = property(lambda self: [each.path for each in self.requests if each.method == "CONNECT"])

    def _serve(self, sock: socket.socket, buffer: bytearray) -> None:
        if not (head := _read_head(sock, buffer)):
            return
        self._note(Request("other", *head, at=time.monotonic(), whole=True))
        self._pause(self.silence or 0)
        status = self.status if head[0] == "CONNECT" else 405
        if status != 200:
            sock.sendall(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        elif self.to:
            with socket.create_connection(self.to, 5) as far:
                self._sockets.add(far)
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _tunnel(sock, far)


def _tunnel(near: socket.socket, far: socket.socket) -> None:
    while True:
        for source in select.select([near, far], [], [])[0]:
            try:
                data = source.recv(65536)
            except (ConnectionResetError, ConnectionAbortedError):  # handed on as what it was
                reset_at_close(near)
                return
            if not data:
                return
            (far if source is near else near).sendall(data)


def _read_head(sock: socket.socket, buffer: bytearray) -> tuple[str, str, dict] | None:
    """Method, path, headers; None when the client closed first. What came behind them stays in the buffer."""
    while b"\r\n\r\n" not in buffer:
        if not (piece := sock.recv(65536)):
            return None
        buffer += piece
    head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    buffer[:] = rest
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    fields = (line.partition(":") for line in lines)
    return method, path, {name.lower(): value.strip() for name, _, value in fields}


def reset_at_close(sock: socket.socket) -> None:
    """Let the end of this connection be a reset."""
    numbers = "hh" if os.name == "nt" else "ii"  # Windows' struct linger has short ones
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(numbers, 1, 0))


def _shutdown(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, how)  # not SSLSocket's, which drops TLS under a running reader


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """A base URL that refuses: its port is bound, so that nobody else can take it, but nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """A base URL whose connects hang: its backlog is full and nobody accepts (Linux)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
