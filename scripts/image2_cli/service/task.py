"""The service's JSON as values: what a task is and where it stands.

Pure: no network, no disk, no clock. Whatever the service sends, nothing here raises anything but
`NotATask`; text from the service is data, cleaned and cut before anything else sees it.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from typing import NamedTuple, Optional, Tuple

TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
DONE = {"completed", "complete", "succeeded", "success", "done", "finished"}
OVER = {"failed", "failure", "cancelled", "canceled", "expired", "rejected", "error", "errored", "timeout",
        "timed_out", "aborted"}
MAX_IMAGES = 64  # an order is for ten at most; 10,000 items are not an answer to it
MAX_URL = 4096
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn")
# of no width, but letters or marks by their category: joiners, fillers, variation selectors
ZERO_WIDTH = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
SEEN = 100_000  # characters of one text that anything here ever looks at
MAX_PARTS = 250_000  # of one answer's JSON: 100 MB of `[],` took 4.7 GB, deaf to signals


class NotATask(ValueError):
    """The value is no answer about a task; the text says what is missing."""


class ImageResult(NamedTuple):
    """One image of a task: `url`, or `data` (base64 or a data: URI), or an `error`, or nothing yet."""

    index: int
    url: Optional[str] = None
    data: Optional[str] = None
    revised_prompt: Optional[str] = None
    status: Optional[str] = None
    error: Optional[str] = None

    @property
    def is_there(self) -> bool:
        """The picture can be had."""
        return bool(self.url or self.data)

    @property
    def is_over(self) -> bool:
        """Nothing more will come of this image: there, or ended otherwise."""
        word = (self.status or "").lower()
        return word in OVER or (word in DONE and self.is_there)


class Task(NamedTuple):
    """A task, or a synchronous answer (`id` None). `status` is the service's word, None where it gave none."""

    id: Optional[str]
    status: Optional[str]
    progress: Optional[float]
    images: Tuple[ImageResult, ...]
    error: Optional[str] = None

    @property
    def outcome(self) -> str:
        """`running`, `done` (images may still be missing or failed) or `failed`."""
        word = (self.status or "").lower()
        some_there = any(image.is_there for image in self.images)
        if word in OVER or (self.images and all(image.is_over for image in self.images)):
            return "done" if some_there else "failed"
        if word in DONE:
            return "done"
        if not word and some_there and all(image.is_there or image.is_over for image in self.images):
            return "done"
        return "running"


def is_task_id(text) -> bool:
    """May this enter a URL, a file or a command? Nothing that could climb or escape does."""
    return isinstance(text, str) and bool(TASK_ID.fullmatch(text)) and text not in (".", "..")


def clean(text, limit: int = 200):
    """Server text made harmless: one line, no control, bidi or zero-width characters, cut to `limit`.

    None where there is no text. Only ever data: it goes into `server_message`, `revised_prompt`, `status`.
    """
    if not isinstance(text, str):
        return None
    line = " ".join(harmless(text[: limit * 4]).split())
    return (line[: limit - 1] + "…" if len(line) > limit else line) or None


def harmless(text: str) -> str:
    """The text without what the eye does not see: control, bidi, zero-width and unassigned characters."""
    return "".join(" " if char.isspace() else char for char in ZERO_WIDTH.sub("", text)
                   if char.isspace() or unicodedata.category(char) not in INVISIBLE)


def without(value, secret: str):
    """A JSON value with every text withheld that holds `secret`, also split by invisible characters or percent-encoded.

    Raises RecursionError for a value that is nested too deep to look through.
    """
    if isinstance(value, str):
        # `clean` keeps the beginning of a long text and would put a split key together again
        hides = not (value.isascii() and value.isprintable())  # 10,000 links took seconds to look through
        text = harmless(value[:SEEN]) if hides else value
        seen = secret in value or secret in text or ("%" in text and encoded(secret).search(text[:SEEN]))
        return "(withheld: it held the key)" if seen else value
    if isinstance(value, list):
        return [without(item, secret) for item in value]
    if isinstance(value, dict):
        return {without(name, secret): without(item, secret) for name, item in value.items()}
    return value


@functools.lru_cache(maxsize=8)
def encoded(secret: str):
    """The pattern of `secret` as a link holds it: each character as it is or percent-encoded."""
    return re.compile("".join("(?:%s|(?i:%%%02x))" % (re.escape(char), ord(char)) for char in secret))


def parse_json(raw: bytes):
    """Bytes -> JSON value. Raises `NotATask` for all that is none (also 100,000 nested brackets)."""
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_PARTS:  # base64 has none of them
        raise NotATask("too many parts")
    try:
        return json.loads(bytes(raw).decode("utf-8-sig", "replace"), parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        raise NotATask("not JSON") from None


def find_task_id(raw: bytes):
    """A task id in the bytes of an answer that was cut or spoiled, else None: polling it is free."""
    found = re.search(rb'"task_id"\s*:\s*"([A-Za-z0-9._:-]{1,128})"', bytes(raw))
    text = found.group(1).decode("ascii") if found else None
    return text if is_task_id(text) else None


def error_text(value, limit: int = 200):
    """The words of the service's `error` in any of the shapes seen: text, {message}, {error: {message}}."""
    for _ in range(3):
        if isinstance(value, dict):
            value = next((value[name] for name in ("message", "error", "detail", "msg", "code") if value.get(name)),
                         None)
    return clean(value, limit)


def parse_task(value) -> Task:
    """A decoded answer -> `Task`. Raises `NotATask` where it has neither task id, status nor images."""
    if not isinstance(value, dict):
        raise NotATask("not a JSON object")
    items = value.get("data")
    items = items if isinstance(items, list) else []
    images = tuple(_image(index, item) for index, item in enumerate(items[:MAX_IMAGES]))
    task_id = value.get("task_id")
    if isinstance(task_id, int) and not isinstance(task_id, bool):
        task_id = str(task_id) if abs(task_id) < 10**18 else None
    task_id = task_id if is_task_id(task_id) else None
    status = clean(value.get("status"), 40)
    if not (task_id or status or any(image.is_there or image.status for image in images)):
        raise NotATask("no task id, no status, no images")
    return Task(task_id, status, _progress(value.get("progress")), images, error_text(value.get("error")))


def _progress(value):
    """A number of percent, or None: null, text, infinities and truth values are no error, just no news."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e9 < value < 1e9:
        return None
    return value


def _image(index: int, item) -> ImageResult:
    if not isinstance(item, dict):
        return ImageResult(index)
    url, data = item.get("url"), item.get("b64_json")
    if isinstance(url, str) and url.startswith("data:"):
        url, data = None, url
    if clean(url, MAX_URL) != url or " " in (url or ""):  # no URL to print or to ask: blanks, controls, bidi marks
        url = None
    if not isinstance(data, str) or not data:
        data = None
    return ImageResult(index, url, data, clean(item.get("revised_prompt"), 1000), clean(item.get("status"), 40),
                       error_text(item.get("error")))
