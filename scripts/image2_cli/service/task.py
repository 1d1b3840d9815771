"""The service's JSON as values: what a task is and where it stands.

Pure: no network, no disk, no clock. Whatever the service sends, nothing here raises anything but `NotATask`; its texts
are data, cleaned and cut before anything else sees them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, Optional, Tuple, Union

from ..text import clean, harmless, shown

TASK_ID = re.compile(r"[A-Za-z0-9._:+/=~-]{1,256}")
DONE = ("completed", "complete", "succeeded", "succeed", "success", "done", "finished")
WAITING = ("pending", "queued", "inqueue", "waiting", "processing", "running", "inprogress", "starting", "submitted")
BAD_ENDS = ("cancel", "expire", "reject", "abort", "moderat", "block", "denied", "timeout", "timedout", "fail", "error")
MAX_IMAGES = 64  # an order is for ten at most; 10,000 items are not an answer to it
MAX_URL = 4096
MAX_PARTS = 250_000  # of one answer's JSON: 100 MB of `[],` took 4.7 GB, deaf to signals
MAX_DIGITS = 30  # of a whole number; on Python 3.9.6 a million of them take minutes
LONG_RUN = re.compile(r"[!-~]{300,}")  # no words: an echoed data: URI. Longer than any task id
CARRIERS = ("url", "b64_json")  # members that rightly hold long runs
MESSAGE_NAMES = ("message", "msg", "error_message", "error_msg", "errmsg", "reason", "fail_reason", "error", "detail",
                 "errors", "title", "error_description", "code")


class NotATask(ValueError):
    """The value is no answer about a task; the text says what is missing."""


class UnusableId(NotATask):
    """The id it gives cannot be asked for; the text shows it, for it is all the user has."""


class ImageResult(NamedTuple):
    """One image of a task: `url` as it came, or `data` (base64 or a data: URI), or an `error`, or nothing yet."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks an image for
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
        word = _letters(self.status)
        is_failed = self.error is not None and word not in WAITING
        return _is_bad_end(word) or (word in DONE if self.is_there else is_failed)


class Task(NamedTuple):
    """A task, or a synchronous answer (`id` None). `status` is the service's word, None where it gave none."""

    id: Optional[str]
    status: Optional[str]
    progress: Optional[float]
    images: Tuple[ImageResult, ...]
    error: Optional[str] = None

    def outcome(self, wanted: int) -> str:
        """`running`, `done` (some of the `wanted` images may be missing or failed) or `failed`, by this one answer."""
        word = _letters(self.status)
        some_there = any(image.is_there for image in self.images)
        all_over = bool(self.images) and all(image.is_over for image in self.images)
        enough = len(self.images) >= max(1, wanted)
        if _is_bad_end(word) or (all_over and enough):
            return "done" if some_there else "failed"
        if word in DONE:
            return "failed" if not some_there and (self.error or all_over) else "done"
        settled = enough and all(image.is_there or image.is_over for image in self.images)
        at_its_end = word not in WAITING or (self.progress or 0) >= 100
        if some_there and (self.id is None or (settled and at_its_end)):
            return "done"
        return "running"

    @property
    def is_waiting(self) -> bool:
        """Does its status say that more will come?"""
        return not self.status or _letters(self.status) in WAITING

    @property
    def reason(self) -> Optional[str]:
        """The service's words for what went wrong: the task's, else those of its first image that has some."""
        return self.error or next((image.error for image in self.images if image.error), None)


def parse_json(raw: Union[bytes, bytearray]) -> Any:
    """Bytes -> JSON value, runs that are no words cut out. Raises `NotATask` for all that is none."""
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_PARTS:  # base64 has none of them
        raise NotATask("too many parts")
    try:
        return _shortened(json.loads(raw.decode("utf-8-sig", "replace"), parse_constant=lambda _name: None,
                                     parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else None))
    except (ValueError, RecursionError):  # 100,000 nested brackets are the latter
        raise NotATask("not JSON") from None


def without_runs(text: str) -> str:
    """The text without what nobody reads. Before the key is looked for: only what is looked through may be shown."""
    return LONG_RUN.sub("…", text)


def parse_task(value: Any) -> Task:
    """A decoded answer -> `Task`. Raises `NotATask` where it has neither task id, status nor images."""
    fields = _unwrapped(value)
    items = fields.get("data")
    images = tuple(_image(index, item) for index, item in enumerate(items[:MAX_IMAGES] if isinstance(items, list) else ()))
    some_there = any(image.is_there for image in images)
    status = clean(fields.get("status"), 40)
    given = _given_id(fields)
    task_id = given if is_task_id(given) else None
    if given and not task_id and not some_there:
        raise UnusableId(f"its task id cannot be used: {shown(clean(given, 80) or 'nothing that can be seen', 80)}")
    if not (task_id or status or some_there or any(image.status for image in images)):
        raise NotATask("no task id, no status, no images")
    error = _reason(fields.get("error")) or (error_text(fields) if _is_bad_end(_letters(status)) else None)
    return Task(task_id, status, _progress(fields.get("progress")), images, error)


def is_task_id(text: object) -> bool:
    """May this enter a URL (percent-encoded), a file or a command? Nothing that could climb or escape does."""
    return (isinstance(text, str) and TASK_ID.fullmatch(text) is not None
            and not any(step in (".", "..") for step in text.split("/")))


def find_task_id(raw: Union[bytes, bytearray]) -> Optional[str]:
    """A task id in the bytes of an answer that was cut or spoiled: polling it is free. None where it may have been cut
    itself, and for a plain `id` beside an error: that is a request's."""
    number = rb'(?:"((?:[A-Za-z0-9._:+/=~-]|\\/){1,256})"|(-?\d{1,20})(?=[\s,}]))'
    found = re.search(rb'"task_?[iI]d"\s*:\s*' + number, raw)
    if not found and b'"error"' not in raw:
        found = re.match(rb'\s*\{(?:[^{}\[\]]*"data"\s*:\s*\{)?[^{}\[\]]*?"id"\s*:\s*' + number, raw[:4096])
    text = (found[1] or found[2]).replace(rb"\/", b"/").decode("ascii") if found else ""
    return text if is_task_id(text) else None


def explicit_error(value: Any) -> Optional[str]:
    """The words of an error that an answer states outright: an `error`, or a `code` that is not one of success."""
    if not isinstance(value, dict):
        return None
    inner = value.get("data")
    error = value.get("error") or (inner.get("error") if isinstance(inner, dict) else None)
    if error:
        return error_text(value) or _reason(error)
    is_failure = value.get("code") not in (None, 0, 200, "0", "200")
    return error_text(value.get("message") or value.get("msg")) if is_failure else None


def error_text(value: Any, limit: int = 200) -> Optional[str]:
    """The words of an error in any of the shapes seen: text, list, object; `errors` or `detail` besides a message."""
    return clean(_words(value), limit)


def _unwrapped(value: Any) -> dict[str, Any]:
    """The answer without the `data: {…}` that wraps it in some services. Raises `NotATask` for what is no object."""
    if not isinstance(value, dict):
        raise NotATask("not a JSON object")
    inner = value.get("data")
    if not isinstance(inner, dict):
        return value
    if any(inner.get(name) for name in CARRIERS):
        return {**value, "data": [inner]}
    if _given_id(value) and not _given_id(inner):
        return {**value, "data": None, **inner}
    return {**inner, "error": inner.get("error") or value.get("error")}  # the status around it may be the exchange's


def _given_id(fields: dict[str, Any]) -> Optional[str]:
    """What stands where a task's id should, whether it can be one or not; None where nothing does."""
    names = ["task_id", "taskId", "id"]
    if explicit_error(fields) is not None and not fields.get("status"):
        names.remove("id")  # beside an error it is the request's
    given = next((fields[name] for name in names if not isinstance(fields.get(name), (bool, type(None)))), None)
    if isinstance(given, int) and -(2**63) <= given < 2**64:
        return str(given)
    return given if given is None or isinstance(given, str) else f"({given})"  # brackets make it none


def _letters(word: Optional[str]) -> str:
    return "".join(char for char in (word or "").lower() if char.isalnum())


def _is_bad_end(letters: str) -> bool:
    return not letters.endswith("ing") and any(part in letters for part in BAD_ENDS)  # "moderating" is on its way


def _shortened(value: Any, name: str = "") -> Any:
    if isinstance(value, str):
        return value if name in CARRIERS else without_runs(value)
    if isinstance(value, list):
        return [_shortened(item, name) for item in value]
    if isinstance(value, dict):
        return {key: _shortened(item, key) for key, item in value.items()}
    return value


def _reason(error: Any) -> Optional[str]:
    return (error_text(error) or clean(str(error))) if error else None


def _words(value: Any, depth: int = 0) -> str:
    """The text in a value, uncleaned. Below the top, an object without a known name is a form's: read field by field."""
    if isinstance(value, str):
        return value.strip()
    if depth > 3 or not isinstance(value, (list, dict)):
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(item, depth + 1) for item in value[:5])))
    known = (_words(value.get(name), depth + 1) for name in MESSAGE_NAMES)
    main = next(filter(None, known), "")
    if not main and depth:
        named = [(name, _words(item, depth + 1)) for name, item in list(value.items())[:5]]
        return "; ".join(f"{name}: {text}" for name, text in named if text)
    place = value.get("loc")  # FastAPI's
    if main and isinstance(place, list):
        main = f"{'.'.join(map(str, place[:5]))}: {main}"
    more = _words(value.get("errors"), depth + 1)
    return f"{main}: {more}" if main and more and more not in main else main


def _progress(value: Any) -> Optional[float]:
    """A number of percent, or None: null, text, infinities and truth values are no error, just no news."""
    return value if type(value) in (int, float) and -1e9 < value < 1e9 else None


def _image(index: int, item: Any) -> ImageResult:
    if not isinstance(item, dict):
        return ImageResult(index)
    url, data = item.get("url"), item.get("b64_json")
    url = url.strip() if isinstance(url, str) else ""
    if url[:5].lower() == "data:":
        url, data = "", url
    if len(url) > MAX_URL or harmless(url) != url:  # control characters and bidi marks deceive whoever reads the link
        url = ""
    return ImageResult(index, url or None, data if isinstance(data, str) and data else None,
                       clean(item.get("revised_prompt"), 1000), clean(item.get("status"), 40), _reason(item.get("error")))
