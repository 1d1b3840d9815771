"""One order as it stands in its file: the states it goes through, what it may have cost, and what passes for a record.

Pure: text in, values out. A record is input like any other: somebody else's folder may hold anything under any name.
What is torn, foreign or of the wrong kind is None, never an error; texts are cleaned where they are read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any, Optional

from ..errors import Image2Error
from ..service.task import is_task_id
from ..text import clean

VERSION = 2
MAX_RECORD = 8_000_000  # bytes
MAX_IMAGES = 10  # of one order
MAX_TEXT, MAX_URL = 1000, 4096  # characters

# NOT_SENT: provably not accepted, never sent or refused. SENDING: in its POST, of unknown fate once its run is gone.
# ACCEPTED: a task exists, or pictures came, and not all is settled. LINKED: only the links were wanted, and given.
NOT_SENT, SENDING, UNKNOWN, ACCEPTED = "not_sent", "sending", "unknown", "accepted"
LINKED, SAVED, PARTIAL, FAILED = "linked", "saved", "partial", "failed"
BEFORE_A_TASK = (NOT_SENT, SENDING, UNKNOWN)
FAILED_OR_PARTIAL = (PARTIAL, FAILED)  # what batch --retry-failed orders again
SETTLED = (LINKED, SAVED, PARTIAL, FAILED)
CHARGED = {NOT_SENT: "no", SENDING: "maybe", UNKNOWN: "maybe", ACCEPTED: "yes",
           LINKED: "yes", SAVED: "yes", PARTIAL: "yes", FAILED: "maybe"}

IMAGE_ERRORS = {  # what we say of one image; the service's words stand beside it, in `server_message`
    "task_failed": "The service made no picture of it.",
    "not_saved": "It is paid for but not on disk yet; saving it again is free.",
    "damaged": "What the service sends is no whole picture; it is kept as it came.",
}


@dataclass
class ImageError:
    """Why one image is not there. `message` is never read from a file: a record must not speak in our name."""

    code: str
    message: str = ""
    server_message: Optional[str] = None

    def as_json(self) -> dict[str, str]:
        """The `error` of one image in an answer."""
        known = {"code": self.code, "message": self.message or IMAGE_ERRORS[self.code]}
        return {**known, "server_message": self.server_message} if self.server_message else known


@dataclass
class SavedImage:
    """One image of an order. `file` is its name in the output folder, None while it is not there."""

    index: int
    url: Optional[str] = None
    revised_prompt: Optional[str] = None
    file: Optional[str] = None
    width: Optional[int] = None
    height: Optional[int] = None
    bytes: Optional[int] = None
    sha256: Optional[str] = None
    error: Optional[ImageError] = None


@dataclass
class Record:
    """One order. Times are seconds since 1970 (0 where unknown); `request` is the body of its POST, described."""

    id: str
    fingerprint: str
    service: str
    state: str = NOT_SENT
    sequence: int = 0  # of the orders with this fingerprint; the highest is what the command means
    created_s: float = 0.0
    sent_s: float = 0.0
    accepted_s: float = 0.0
    request: dict[str, Any] = field(default_factory=dict)
    stem: str = ""
    suffix: Optional[str] = None
    overwrite: bool = False
    batch_line: Optional[int] = None
    task_id: Optional[str] = None
    status: Optional[str] = None
    images: list[SavedImage] = field(default_factory=list)
    server_message: Optional[str] = None

    @property
    def is_settled(self) -> bool:
        """Nothing is left to do."""
        return self.state in SETTLED

    @property
    def wanted(self) -> int:
        """How many images were ordered; 0 where only the service knows."""
        n = self.request.get("n")
        return n if type(n) is int and 1 <= n <= MAX_IMAGES else 0

    @property
    def prompt(self) -> Optional[str]:
        """The prompt, cleaned."""
        return clean(self.request.get("prompt"), MAX_TEXT)

    def as_text(self) -> str:
        """The JSON of its file."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, ensure_ascii=True, indent=1)


def charged(record: Record, is_sandbox: bool = False) -> str:
    """What an order may have cost: `yes` it was accepted, `maybe` it may have been, `no`. Nothing else decides that."""
    return "no" if is_sandbox else CHARGED[record.state]


def end_of(record: Record) -> Optional[Image2Error]:
    """The error of an order that stands so, the same each time it is asked for; None where all is well or goes on."""
    if record.state in (SENDING, UNKNOWN):
        return Image2Error("outcome_unknown", f"The same order was sent {moment(record.sent_s)} and may have been accepted "
                           "and charged; it is not repeated. Tell the user; if they agree to a possible second charge, add "
                           "--new.",
                           server_message=record.server_message)
    if record.state == FAILED:
        return Image2Error("task_failed", "The task failed; no picture came. Tell the user why. The service does not say "
                           "whether it is charged; --new orders again, only if the user asks.",
                           server_message=record.server_message)
    codes = [image.error.code for image in record.images if image.error]
    total = max(record.wanted, len(record.images))
    short = codes.count("task_failed") + total - len(record.images)
    if "not_saved" in codes:
        return Image2Error("not_saved", f"{codes.count('not_saved')} of {total} images are paid for but not saved; "
                           "`images` has the reasons. Run `next`: it is free.")
    if "damaged" in codes:
        return Image2Error("damaged", f"{codes.count('damaged')} of {total} images cannot be used; what came is kept "
                           "at `path`. Tell the user; fetching again brings the same.")
    if record.state == PARTIAL and short:
        words = [record.server_message, *(image.error.server_message for image in record.images if image.error)]
        return Image2Error("some_failed", f"{short} of {total} images did not come.",
                           server_message=next(filter(None, words), None))
    return None


def moment(seconds: float) -> str:
    """A time of the wall clock for people."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if 0 < seconds < 4e9 else "earlier"


def parse(data: bytes) -> Optional[Record]:
    """The record in a file's bytes, or None where there is none."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("version") != VERSION or str(value.get("state")) not in CHARGED:
        return None
    required = [_text(value, "id", 36), _text(value, "fingerprint", 64), _text(value, "service", MAX_URL)]
    images = value.get("images")
    task_id, stem = value.get("task_id"), str(value.get("stem"))
    if (None in required or not isinstance(images, list) or len(images) > MAX_IMAGES
            or not isinstance(value.get("request"), dict) or not re.fullmatch("[0-9a-f-]{36}", str(value["id"]))
            or not (task_id is None or is_task_id(task_id)) or not (stem == "" or is_file_name(stem))):
        return None
    parsed = [_image(position, image) for position, image in enumerate(images)]
    suffix, line = value.get("suffix"), value.get("batch_line")
    return Record(
        id=value["id"], fingerprint=value["fingerprint"], service=value["service"], state=str(value["state"]),
        sequence=_number(value, "sequence", int), created_s=_number(value, "created_s", float),
        sent_s=_number(value, "sent_s", float), accepted_s=_number(value, "accepted_s", float),
        request=value["request"], stem=stem, suffix=suffix if re.fullmatch(r"\.[A-Za-z]{3,4}", str(suffix)) else None,
        overwrite=value.get("overwrite") is True, batch_line=line if type(line) is int else None,
        task_id=task_id, status=clean(value.get("status"), 40), images=parsed,
        server_message=clean(value.get("server_message")))


def is_file_name(text: Any) -> bool:
    """Is it the name of a file in the output folder, and nothing that leads out of it?"""
    if not isinstance(text, str) or not text or text in (".", "..") or len(text) > 255:
        return False
    return not {os.sep, os.altsep, "\0", ":" if os.name == "nt" else "\0"} & set(text)


def _image(index: int, value: Any) -> SavedImage:
    if not isinstance(value, dict):
        return SavedImage(index)
    error, file = value.get("error"), value.get("file")
    error = error if isinstance(error, dict) else {}
    code = str(error.get("code"))
    return SavedImage(
        index, url=_text(value, "url", MAX_URL), revised_prompt=clean(value.get("revised_prompt"), MAX_TEXT),
        file=file if is_file_name(file) else None,
        width=_number(value, "width", int) or None, height=_number(value, "height", int) or None,
        bytes=_number(value, "bytes", int) or None, sha256=_text(value, "sha256", 64),
        error=ImageError(code, server_message=clean(error.get("server_message"))) if code in IMAGE_ERRORS else None)


def _text(value: dict[str, Any], name: str, limit: int) -> Optional[str]:
    text = value.get(name)
    return text if isinstance(text, str) and len(text) <= limit and clean(text, limit) == text else None


def _number(value: dict[str, Any], name: str, kind: type) -> Any:
    number = value.get(name)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < 1e11:  # NaN is refused too
        return kind()
    return kind(number)
