"""What the service says: requests as they come in, answers as they go out, and the JSON of both.

Nothing here opens a socket: `faulty` sends these, and tests import all of it from there.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import threading
from collections.abc import Callable
from typing import Any, Union

from pictures import png

SUBMIT = "/api/v1/images/generations"
TASK = r"/api/v1/images/tasks/([^/?]+)$"
FILE = r"/generations/(.+)-\d+\.png$"
CREATED = 1715881600
HTML = "<!doctype html><html><head><title>Oops</title></head><body>Something went wrong</body></html>"


@dataclasses.dataclass
class Request:
    """What came in. `order` is the body of the order that the task belongs to, {} where there is none."""

    kind: str                     # "post", "poll", "file" or "other"
    method: str
    path: str                     # as sent, with its query
    headers: dict                 # names in lower case
    body: bytes = b""
    at: float = 0.0               # time.monotonic() when its head had come
    whole: bool = False           # was it read to its last byte?
    base_url: str = ""
    task_id: str = ""
    order: dict = dataclasses.field(default_factory=dict)
    accepted: bool = False        # has the service taken this order?
    sent: int = 0                 # bytes of the answer that went out

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def n(self) -> int:
        """How many images were ordered."""
        return self.order.get("n") or 1


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer: after `until` and `delay` the bytes up to `cut_at`, then `hang`, then the end (`reset`: an RST)."""

    status: int = 200
    headers: dict = dataclasses.field(default_factory=dict)  # None takes a header away
    body: Any = b""               # bytes, str, a value for JSON, or a callable(request) giving one of these
    content_length: Any = "auto"  # None: the close ends the body; int and str are sent as given
    chunked: bool = False
    cut_at: Any = None            # a fault: bytes of head and body to send, negative from the end, or "head"
    reset: bool = False           # beside cut_at, as `hang` is
    hang: float = 0               # seconds of silence before the connection ends
    drip: tuple | None = None     # (bytes, seconds): so many bytes each so many seconds
    delay: float = 0              # seconds before the first byte
    until: threading.Event | None = None  # nothing is said before this is set; the order counts as soon as it is read
    hints: tuple = ()             # statuses of informational answers (103, …) that go out first
    before_read: bool = False     # answer after the head: the body stays unread, nothing is accepted
    raw: bytes | None = None      # see raw()
    accepted: bool | None = None  # None: yes for a 2xx and for every fault

    def but(self, **changes: Any) -> Answer:
        return dataclasses.replace(self, **changes)

    @property
    def is_fault(self) -> bool:
        return self.cut_at is not None

    @property
    def takes_the_order(self) -> bool:
        return (200 <= self.status < 300 or self.is_fault) if self.accepted is None else self.accepted

    def keeps_alive(self, request: Request) -> bool:
        framed = self.raw is None and (self.chunked or self.content_length == "auto")
        whole = not (self.is_fault or self.before_read)
        return framed and whole and request.headers.get("connection") != "close"

    def wire(self, request: Request) -> bytes:
        """The bytes to send, already cut."""
        body = self.body(request) if callable(self.body) else self.body
        types = {bytes: "image/png", str: "text/html; charset=utf-8"}
        headers: dict = {"Content-Type": types.get(type(body), "application/json")}
        if not isinstance(body, bytes):
            body = (body if isinstance(body, str) else json.dumps(body)).encode()
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        elif self.content_length is not None:
            headers["Content-Length"] = len(body) if self.content_length == "auto" else self.content_length
        if not self.keeps_alive(request) and not self.is_fault:  # a broken server promised to stay
            headers["Connection"] = "close"
        headers.update(self.headers)
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, 'Unheard Of')}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        hints = "".join(f"HTTP/1.1 {status} Early\r\nLink: </x.css>; rel=preload\r\n\r\n" for status in self.hints)
        head = (hints + "\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if self.cut_at == "head":
            return head
        return (head + body if self.raw is None else self.raw)[: self.cut_at]


Said = Union[Answer, Callable[[Request], Answer]]  # what on_post, on_poll and on_file take


def spoiled(answer: Said, **changes: Any) -> Said:
    """The answer, or what a callable will answer, with these changes."""
    if isinstance(answer, Answer):
        return answer.but(**changes)
    return lambda request: answer(request).but(**changes)


# The service's JSON. `fields` replace or add members at the top: ok(data=[]).

def _task(say: Callable[[Request], dict], fields: dict) -> Answer:
    return Answer(body=lambda request: {"created": CREATED, "task_id": request.task_id, **say(request), **fields})


def _waiting(request: Request) -> list:
    return [{"url": None, "status": "pending"} for _ in range(request.n)]


def _images(request: Request, n: int | None, urls: list | None) -> list:
    own = f"{request.base_url}/generations/{request.task_id}"
    urls = urls or [f"{own}-{i}.png" for i in range(n or request.n)]
    prompt = request.order.get("prompt")
    return [{"url": url, "revised_prompt": prompt, "status": "completed"} for url in urls]


def ok(task_id: str | None = None, **fields: Any) -> Answer:
    """An async order is accepted; without an id the orders are called task-1, task-2…"""
    def say(request: Request) -> dict:
        request.task_id = task_id or request.task_id  # so that polls for it know the order's n and size
        return {"task_id": request.task_id, "status": "pending", "data": _waiting(request)}
    return _task(say, fields)


def pending(progress: Any = 0, **fields: Any) -> Answer:
    return _task(lambda request: {"status": "pending", "data": _waiting(request), "progress": progress, "error": None},
                 fields)


def completed(n: int | None = None, urls: list | None = None, **fields: Any) -> Answer:
    """The task is done, with `n` images on this service (None: as many as ordered), or those at `urls`."""
    return _task(lambda request: {"status": "completed", "data": _images(request, n, urls), "progress": 100, "error": None},
                 fields)


def failed(message: str, **fields: Any) -> Answer:
    return _task(lambda _request: {"status": "failed", "data": [], "progress": 0, "error": message}, fields)


def sync_completed(urls: list | None = None, **fields: Any) -> Answer:
    """The answer of the synchronous endpoint: images at once, no task."""
    return Answer(body=lambda request: {"created": CREATED, "data": _images(request, None, urls), **fields})


def refuse(status: int, message: str = "refused", code: str | None = None, **headers: Any) -> Answer:
    """An error in JSON; `retry_after=3` becomes the header Retry-After, `date="…"` the service's own clock."""
    error = {"message": message, **({"code": code} if code else {})}
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Answer(status, named, {"error": error})


def page(status: int = 200, html: str = HTML, **headers: Any) -> Answer:
    """An HTML page, as proxies and gateways send it."""
    return refuse(status, **headers).but(body=html)


def raw(text: str) -> Answer:
    """These bytes, one a character, in place of status, headers and body."""
    return Answer(raw=text.encode("latin-1"))


def redirect(status: int, location: str) -> Answer:
    return Answer(status, {"Location": location})


def picture(data: bytes | None = None) -> Answer:
    """These bytes as a file; without any, a PNG of the size ordered (64x64 where none or `auto` was)."""
    def body(request: Request) -> Any:
        size = re.fullmatch(r"(\d+)x(\d+)", str(request.order.get("size")))
        return png(*(map(int, size.groups()) if size else (64, 64)))
    return Answer(body=body if data is None else data)


def ranged(data: bytes, etag: str | None = '"v1"') -> Callable[[Request], Answer]:
    """These bytes as a CDN serves them, from any byte on: 206, 416, or 200 where `If-Range` is not its `etag`."""
    def say(request: Request) -> Answer:
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if not found or request.headers.get("if-range", etag) != etag:
            return Answer(200, headers, data)
        first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return Answer(416, {**headers, "Content-Range": f"bytes */{len(data)}"}, b"")
        return Answer(206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1])
    return say


def cut(answer: Said, at: int | str = "head") -> Said:
    """An orderly close after `at` bytes of head and body; negative: from the end; "head": before the body."""
    return spoiled(answer, cut_at=at)


def reset(answer: Said | None = None, at: int | str = 0) -> Said:
    """An RST after `at` bytes of the answer."""
    return spoiled(answer or ok(), cut_at=at, reset=True)


def hang(seconds: float = 30, answer: Said | None = None, at: int | str = 0) -> Said:
    """Silence after `at` bytes of the answer, then an orderly close."""
    return spoiled(answer or ok(), cut_at=at, hang=seconds)


def drip(answer: Said, n: int, seconds: float) -> Said:
    """`n` bytes each so many seconds."""
    return spoiled(answer, drip=(n, seconds))


# The healthy service: what is said where nothing was scripted.

def _healthy_post(request: Request) -> Answer:
    if not request.path.endswith(SUBMIT):
        return refuse(404, "not found")
    return ok() if request.order.get("async") is True else sync_completed()


def _healthy_file(request: Request) -> Answer:
    return picture() if re.search(FILE, request.path) else refuse(404, "not found")


HEALTHY = {
    "post": _healthy_post,
    "poll": completed(),
    "file": _healthy_file,
    "other": refuse(404, "not found"),
}
