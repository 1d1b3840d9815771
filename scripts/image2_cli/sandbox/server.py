"""The service on this machine, for nothing: the page's contract over real HTTP, placeholder pictures.

Serves on 127.0.0.1 only, writes no file, asks nobody, holds no real key, and needs only the standard library.
It is no proof of how the service behaves where its page is silent. There a stand-in must choose:

- A refusal is {"error": {"message", "code"}} with 400, 401, 404, 405, 411, 413. Any well-formed key is right.
- `size` is WxH with 16 to 4096 pixels a side, or "auto", which is 1024x1024, as is no size. `n` is 1 to 10.
  `image` is a list of http(s) URLs and data:image/ URIs; they are looked at, not fetched. null is no value.
- Fields that the page does not show are ignored, and all headers but Authorization, Host and those of HTTP.
- A task is pending for the first tenth of its time, then processing, then completed; progress is time.
  It never fails. Its id carries all there is to know about it, so that any sandbox, also one that is started
  later and on another port, answers for it: a killed run can be continued. Only `revised_prompt` is lost.
- `GET /sandbox` tells what was ordered since the start: {"orders", "images"}.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
import string
import threading
import time
from typing import Callable, Iterator, NamedTuple

from . import pictures as placeholder
from .loopback import Exchange, Refused, Server

KEY = "sandbox-key-costs-nothing"
SERVER = "image2-sandbox"  # the Server header of every response, by which a client can tell
MODEL = "gpt-image-2"
MAX_SECONDS = 3600  # keeps a task's id within 40 characters


class Sandbox:
    """The stand-in. `seconds` is how long a task takes, 0 to 3600; port 0 takes a free one.

    `log` is called with one line for each request ("GET /sandbox 200"), from the thread that served it.
    """

    def __init__(self, seconds: float = 4.0, port: int = 0, log: Callable[[str], object] | None = None):
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"a task takes 0 to {MAX_SECONDS} seconds")
        self.seconds, self.port, self.log = seconds, port, log
        self.base_url = ""  # known after start()
        self.orders = 0  # accepted POSTs
        self.images = 0  # images asked for in them
        self.prompts: dict[str, str] = {}  # by task id
        self._lock = threading.Lock()
        self._server: Server | None = None

    def start(self) -> Sandbox:
        """Serve in a daemon thread. Raises OSError where the port is taken."""
        self._server = Server(_SandboxExchange, self, self.port, self.log)
        self.port = self._server.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}"
        return self

    def stop(self) -> None:
        """Close the port and every connection. Twice does no harm."""
        server, self._server = self._server, None
        if server:
            server.stop()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def accept(self, prompt: str, width: int, height: int, n: int) -> _Task:
        """Count one order and begin its task."""
        task = _Task(width, height, n, _now(), round(self.seconds * 1000), next(_serials) % 36**3)
        with self._lock:
            self.orders += 1
            self.images += n
            self.prompts[task.id] = prompt
        return task


class _Task(NamedTuple):
    """All there is to know about a task. Times are milliseconds, the start since 1970."""

    width: int
    height: int
    n: int
    started: int
    duration: int
    serial: int

    @property
    def id(self) -> str:
        """Such as sandbox-1024x1024x1-mi4k2z9q-334-a1f."""
        numbers = "-".join(map(_base36, (self.started, self.duration, self.serial)))
        return f"sandbox-{self.width}x{self.height}x{self.n}-{numbers}"

    @classmethod
    def from_id(cls, text: str) -> _Task:
        """The task that an id speaks of; `Refused` where no sandbox can have made it."""
        numbers = "([0-9a-z]{8,9})-([0-9a-z]{1,5})-([0-9a-z]{1,3})"
        found = re.fullmatch(f"sandbox-([0-9]+x[0-9]+)x([1-9]|10)-{numbers}", text)
        size = _parse_size(found.group(1)) if found else None
        if not size:
            raise Refused(404, "task_not_found", "there is no such task")
        return cls(*size, int(found.group(2)), *(int(part, 36) for part in found.groups()[2:]))

    def progress(self) -> int:
        """0 to 100; 100 is completed."""
        passed = max(0, _now() - self.started)
        return 100 if passed >= self.duration else 100 * passed // self.duration

    def unfinished(self, status: str) -> list[dict]:
        return [{"url": None, "status": status}] * self.n

    def picture(self, index: int) -> bytes:
        lines = ["SANDBOX", f"{self.width}x{self.height}"] + [f"{index + 1}/{self.n}"] * (self.n > 1)
        # The golden ratio keeps the colours of tasks that follow each other far apart.
        return placeholder.draw(self.width, self.height, lines, self.serial * 0.618034 + index * 0.03)


_serials = itertools.count(secrets.randbelow(36**3))  # so that no two orders of one moment share an id


def _now() -> int:
    return int(time.time() * 1000)


def _base36(number: int) -> str:
    """What int(text, 36) reads."""
    digits = (string.digits + string.ascii_lowercase)[number % 36]
    return _base36(number // 36) + digits if number >= 36 else digits


def _parse_size(text: object) -> tuple[int, int] | None:
    """(width, height) of "WxH" or "auto"; None where it is neither or out of bounds."""
    if text == "auto":
        return 1024, 1024
    found = re.fullmatch("([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", text) if isinstance(text, str) else None
    width, height = map(int, found.groups()) if found else (0, 0)
    return (width, height) if min(width, height) >= 16 and max(width, height) <= 4096 else None


def _mistakes(order: dict) -> Iterator[str]:
    """What is wrong with an order, one phrase for each field."""
    if not isinstance(order.get("prompt"), str) or not order["prompt"].strip():
        yield "prompt must be a string and not empty"
    if order.get("model", MODEL) != MODEL:
        yield f'model must be "{MODEL}"'
    if not _parse_size(order.get("size", "auto")):
        yield 'size must be "WxH" with 16 to 4096 pixels a side, such as "1024x1024", or "auto"'
    if type(order.get("n", 1)) is not int or not 1 <= order.get("n", 1) <= 10:  # True is an int to isinstance
        yield "n must be an integer from 1 to 10"
    references = order.get("image", [])
    url = re.compile(r"https?://[^\s/]\S*|data:image/[a-z0-9.+-]+[;,]\S+", re.IGNORECASE)
    if not isinstance(references, list) or not all(url.fullmatch(str(one)) for one in references):
        yield "image must be a list of strings, each an http(s) URL or a data:image/ URI"
    if not isinstance(order.get("async", False), bool):
        yield "async must be true or false"


def _read_order(body: bytes) -> dict:
    try:
        order = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused(400, "invalid_json", "the body is not JSON") from None
    if not isinstance(order, dict):
        raise Refused(400, "invalid_request", "the body must be a JSON object")
    mistakes = "; ".join(_mistakes(order))
    if mistakes:
        raise Refused(400, "invalid_request", mistakes)
    return order


class _SandboxExchange(Exchange):
    """The endpoints. Images are made when they are fetched: there is nothing to keep."""

    server_version = SERVER

    def take_order(self) -> None:
        self.need_key()
        order = _read_order(self.body)
        prompt, (width, height) = order["prompt"], _parse_size(order.get("size", "auto"))
        task = self.server.owner.accept(prompt, width, height, order.get("n", 1))
        created = {"created": task.started // 1000}
        if order.get("async"):
            waiting = {"task_id": task.id, "status": "pending", "data": task.unfinished("pending")}
            return self.answer({**created, **waiting})
        self.server.stopping.wait(task.duration / 1000)
        self.answer({**created, "data": [{"url": url, "revised_prompt": prompt} for url in self.urls(task)]})

    def tell_task(self, task_id: str) -> None:
        self.need_key()
        task = _Task.from_id(task_id)
        progress = task.progress()
        status = "completed" if progress == 100 else "processing" if progress >= 10 else "pending"
        images = task.unfinished(status)
        if status == "completed":
            prompt = self.server.owner.prompts.get(task_id)
            revised = {} if prompt is None else {"revised_prompt": prompt}
            images = [{"url": url, **revised, "status": status} for url in self.urls(task)]
        self.answer({"created": task.started // 1000, "task_id": task_id, "status": status,
                     "progress": progress, "data": images, "error": None})

    def send_picture(self, task_id: str, index: str) -> None:
        task = _Task.from_id(task_id)
        if int(index) >= task.n:
            raise Refused(404, "not_found", "there is no such picture")
        self.send(task.picture(int(index)), "image/png")

    def tell_counts(self) -> None:
        self.answer({"orders": self.server.owner.orders, "images": self.server.owner.images})

    def need_key(self) -> None:
        sent = self.headers.get("Authorization", "").strip()
        if not re.fullmatch(r"(?i:bearer) +[\x21-\x7e]{8,512}", sent):
            message = "send the key as Authorization: Bearer KEY; a key is 8 to 512 visible ASCII characters"
            raise Refused(401, "unauthorized", message, **{"WWW-Authenticate": "Bearer"})

    def urls(self, task: _Task) -> list[str]:
        """Where the task's pictures are, under the name that this client has for this server."""
        host = self.headers.get("Host", "")
        named = re.fullmatch(r"[A-Za-z0-9.:\[\]-]{1,255}", host)
        base = f"http://{host}" if named else self.server.owner.base_url
        return [f"{base}/generations/{task.id}-{index}.png" for index in range(task.n)]

    routes = (
        (("POST",), "/api/v1/images/generations", take_order),
        (("GET", "HEAD"), "/api/v1/images/tasks/([^/]+)", tell_task),
        (("GET", "HEAD"), "/generations/([^/]+)-([0-9])[.]png", send_picture),
        (("GET", "HEAD"), "/sandbox", tell_counts),
    )
