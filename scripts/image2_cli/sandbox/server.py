"""The service on this machine, for nothing: the page's contract over real HTTP, placeholder pictures.

Serves on 127.0.0.1 only, writes no file, prints nothing, fetches nothing. Where the page is silent a stand-in must choose,
and proves nothing: sizes are 16 to 4096 pixels a side, a task is pending for a tenth of its time, then processing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable, NamedTuple, Optional

from . import pictures

KEY = "sandbox-key-costs-nothing"
SERVER = "image2-sandbox"  # the Server header of every response, by which a client can tell
AUTO = (1024, 1024)
MAX_BODY = 64 << 20  # bytes
LINGER_S = 2.0
# A page in a browser can bring its own host name to this address (DNS rebinding), but none of these.
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
REFERENCE = re.compile(r"https?://[^\s/]\S*|data:image/[a-z0-9.+-]+[;,]\S+", re.IGNORECASE)
TASK_ID = re.compile("sandbox-([0-9]+x[0-9]+)x(?:[1-9]|10)-[0-9]{13}-[0-9]{1,8}-[0-9]{1,6}")
_serials = itertools.count(secrets.randbelow(1_000_000))  # so that no two orders of one moment share an id


class Refused(Exception):
    """The answer to a request that is not granted: an HTTP status, a code and a message."""


class Task(NamedTuple):
    """All of it stands in its id, number by number, so that a later sandbox can answer for it. Times are milliseconds."""

    width: int
    height: int
    n: int
    started: int
    duration: int
    serial: int

    @property
    def id(self) -> str:
        """Such as sandbox-1024x1024x1-1795000000000-4000-77."""
        return f"sandbox-{self.width}x{self.height}x{self.n}-{self.started}-{self.duration}-{self.serial}"

    @classmethod
    def from_id(cls, text: str) -> Task:
        """The task that an id speaks of; `Refused` where no sandbox can have made it."""
        found = TASK_ID.fullmatch(text)
        if not found or not _parse_size(found.group(1)):
            raise Refused(404, "task_not_found", "there is no such task")
        return cls(*map(int, re.findall("[0-9]+", text)))

    def picture(self, index: int) -> bytes:
        """One of its placeholders."""
        lines = ["SANDBOX", f"{self.width}x{self.height}"] + [f"{index + 1}/{self.n}"] * (self.n > 1)
        # The golden ratio keeps the colours of tasks that follow each other far apart.
        return pictures.draw(self.width, self.height, lines, self.serial * 0.618034 + index * 0.03)


def _parse_size(text: object) -> Optional[tuple[int, int]]:
    """(width, height) of "WxH"; None where it is something else or out of bounds."""
    found = re.fullmatch("([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", str(text))
    width, height = map(int, found.groups()) if found else (0, 0)
    return (width, height) if min(width, height) >= 16 and max(width, height) <= 4096 else None


FIELDS: tuple[tuple[str, object, Callable[[Any], object], str], ...] = (
    # field of an order, its value where it is left out, what is right, and in words; other fields are ignored
    ("prompt", "", lambda value: isinstance(value, str) and value.strip(), "a string and not empty"),
    ("model", "gpt-image-2", lambda value: value == "gpt-image-2", '"gpt-image-2"'),
    ("size", "auto", lambda value: value == "auto" or _parse_size(value),
     '"WxH" with 16 to 4096 pixels a side, such as "1024x1024", or "auto"'),
    ("n", 1, lambda value: type(value) is int and 1 <= value <= 10, "an integer from 1 to 10"),  # isinstance takes True
    ("image", [], lambda value: isinstance(value, list) and all(REFERENCE.fullmatch(str(one)) for one in value),
     "a list of strings, each an http(s) URL or a data:image/ URI"),
    ("async", False, lambda value: isinstance(value, bool), "true or false"),
)


class Sandbox(socketserver.ThreadingTCPServer):  # http.server's own asks the resolver for this machine's name
    """The stand-in. `seconds` is how long a task takes; port 0 takes a free one, a taken one raises OSError; `log` is called
    with one line for each request ("GET /sandbox 200"), from the thread that served it."""

    daemon_threads = True
    request_queue_size = 128  # with the default of 5, some of a batch would wait a second to connect
    allow_reuse_address = os.name == "posix"  # on Windows it would let two servers share one port

    def __init__(self, seconds: float = 4.0, port: int = 0, log: Optional[Callable[[str], object]] = None) -> None:
        super().__init__(("127.0.0.1", port), _Exchange)
        self.seconds, self.port, self.log = seconds, self.server_address[1], log
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.orders = self.images = 0  # accepted POSTs, and the images asked for in them
        self.prompts: dict[Task, str] = {}
        self._lock = threading.Lock()

    def start(self) -> Sandbox:
        """Serve in daemon threads; stop() waits for the interval, whose default would be felt at every exit."""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port. Twice does no harm."""
        self.shutdown()
        self.server_close()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def accept(self, order: dict[str, Any]) -> Task:
        """Count one order and begin its task."""
        size, now = _parse_size(order["size"]) or AUTO, time.time_ns() // 1_000_000
        task = Task(*size, order["n"], now, round(self.seconds * 1000), next(_serials) % 1_000_000)
        with self._lock:
            self.orders += 1
            self.images += task.n
            self.prompts[task] = order["prompt"]
        return task

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is no news; a bug is
            super().handle_error(request, client_address)


class _Exchange(BaseHTTPRequestHandler):
    """One connection, one request, one answer. Pictures are made when they are fetched."""

    server: Sandbox
    protocol_version = default_request_version = "HTTP/1.1"  # so that garbage gets a status line, too

    def do_GET(self) -> None:
        self.close_connection = True
        try:
            if not OWN_HOST.fullmatch(", ".join(self.headers.get_all("Host", []))):
                raise Refused(421, "misdirected_request", "the sandbox answers to 127.0.0.1, localhost and [::1] only")
            is_open = not self.path.startswith("/api/")
            if not is_open and not re.fullmatch(f"(?i:bearer) +{KEY}", self.headers.get("Authorization", "").strip()):
                raise Refused(401, "invalid_api_key", f"the sandbox takes no key but its own: Authorization: Bearer {KEY}")
            self.answer_to(f"{self.command} {self.path.partition('?')[0]}")
        except Refused as refused:
            self.refuse(*refused.args)

    do_POST = do_GET

    def answer_to(self, asked: str) -> None:
        task = re.fullmatch("GET /api/v1/images/tasks/([^/]+)", asked)
        picture = re.fullmatch("GET /generations/([^/]+)-([0-9])[.]png", asked)
        if asked == "POST /api/v1/images/generations":
            self.take_order(self.read_order())
        elif task:
            self.show(Task.from_id(task.group(1)))
        elif picture:
            self.send(Task.from_id(picture.group(1)).picture(int(picture.group(2))), "image/png")
        elif asked == "GET /sandbox":
            self.send_json({"orders": self.server.orders, "images": self.server.images})
        else:
            raise Refused(404, "not_found", "there is nothing at this path")

    def read_order(self) -> dict[str, Any]:
        """The fields of the order that comes, none of them missing or wrong."""
        length = ", ".join(self.headers.get_all("Content-Length", []))
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,18}", length):
            raise Refused(411, "length_required", "send the body in one piece, with one Content-Length")
        if int(length) > MAX_BODY:
            raise Refused(413, "payload_too_large", f"a body may have {MAX_BODY} bytes")
        try:
            order = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            order = None
        if not isinstance(order, dict):
            raise Refused(400, "invalid_json", "the body must be a JSON object")
        order = {**{name: default for name, default, _, _ in FIELDS}, **order}
        mistakes = [f"{name} must be {words}" for name, _, is_right, words in FIELDS if not is_right(order[name])]
        if mistakes:
            raise Refused(400, "invalid_request", "; ".join(mistakes))
        return order

    def take_order(self, order: dict[str, Any]) -> None:
        task = self.server.accept(order)
        if order["async"]:
            waiting = [{"url": None, "status": "pending"}] * task.n
            self.send_json({"created": task.started // 1000, "task_id": task.id, "status": "pending", "data": waiting})
        else:
            time.sleep(self.server.seconds)
            self.send_json({"created": task.started // 1000, "data": self.images_of(task)})

    def show(self, task: Task) -> None:
        passed = time.time_ns() // 1_000_000 - task.started + 1  # a task that takes no time is completed at once
        progress = min(100, max(0, 100 * passed // (task.duration + 1)))
        if progress == 100:
            status, images = "completed", [{**image, "status": "completed"} for image in self.images_of(task)]
        else:
            status = "pending" if progress < 10 else "processing"
            images = [{"url": None, "status": status}] * task.n
        self.send_json({"created": task.started // 1000, "task_id": task.id, "status": status, "progress": progress,
                        "data": images, "error": None})

    def images_of(self, task: Task) -> list[dict[str, Optional[str]]]:
        """Its images: links under the name that this client has for this server; the prompt of an earlier one is lost."""
        prompt = self.server.prompts.get(task)
        return [{"url": f"http://{self.headers['Host']}/generations/{task.id}-{index}.png", "revised_prompt": prompt}
                for index in range(task.n)]

    def send_json(self, value: dict[str, Any], status: int = 200) -> None:
        self.send(json.dumps(value).encode("ascii"), "application/json", status)

    def send(self, content: bytes, kind: str, status: int = 200) -> None:
        if self.server.log:
            path = self.path.partition("?")[0] if self.command else "-"  # queries hold secrets
            self.server.log(f"{self.command or '-'} {path} {status}")
        self.send_response_only(status)
        headers = {"Server": SERVER, "Content-Type": kind, "Content-Length": str(len(content)), "Connection": "close"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send_json({"error": {"message": message, "code": code}}, status)
        # Swallow what still comes: closing on unread bytes is a reset, which loses the answer.
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_S)
        with contextlib.suppress(OSError):
            while self.connection.recv(65536):
                pass

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        self.refuse(int(code), "invalid_request", "this is no request that can be answered")  # the base class has HTML
