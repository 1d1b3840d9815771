"""One order as it stands in its file: the states it goes through, its fields, and what passes for a record at all.

Reads the one file it is told, writes nothing. A record that is torn, foreign or unreadable is None, never an error: a
folder of somebody else's may hold anything under any name.
"""

from __future__ import annotations

import json
import os
import re
import time

from ..service.task import is_task_id

MAX_RECORD = 8_000_000  # bytes; more than 64 images with the longest URLs and texts can take
# States. NOT_SENT: provably not accepted (yet). SENDING: on its way, of unknown fate once its run is gone.
# SUBMITTED: accepted, with pictures still to come or to save. FINISHED: nothing left to do.
NOT_SENT, SENDING, UNKNOWN, SUBMITTED, FINISHED = "not_sent", "sending", "unknown", "submitted", "finished"
BEFORE_A_TASK = (NOT_SENT, SENDING, UNKNOWN)
OPTIONAL = ("task_id", "created_s", "sent_s", "accepted_s", "status", "suffix", "overwrite", "error")
STATES = (*BEFORE_A_TASK, SUBMITTED, FINISHED)


class Record(dict):
    """One order. `path` is its file. Fields: see `store.Store.create`."""

    path = ""

    @property
    def age_s(self) -> float:
        """Seconds since it was last sent, by the wall clock; never negative."""
        return max(0.0, time.time() - (self.get("sent_s") or 0.0))

    @property
    def images(self) -> list:
        """What is known of each image, in order."""
        return self["images"]


def read(path: str):
    """The record in this file, or None where there is none."""
    if not path.endswith(".json"):
        return None
    try:
        if os.path.getsize(path) > MAX_RECORD or not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            value = json.loads(file.read(MAX_RECORD).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not _is_record(value):
        return None
    record = Record({**dict.fromkeys(OPTIONAL), **value})
    record.path = path
    folder = os.path.dirname(os.path.dirname(path))
    for image in record.images:
        moved = os.path.join(folder, os.path.basename(image.get("path") or ""))
        if image.get("path") and not os.path.exists(image["path"]) and os.path.exists(moved):
            image["path"] = moved  # the whole folder was, with its pictures
        for side in {"width", "height"} & set(image):
            image[side] = image[side] if type(image[side]) is int else None  # an answer must be able to carry it
    if record["state"] in (SENDING, UNKNOWN) and os.path.exists(path + ".data"):
        record["state"] = SUBMITTED  # killed between keeping the pictures of the answer and saying so
    return record


def _is_record(value) -> bool:
    """Is this what `Store.create` and `Store.save` write?"""
    if not isinstance(value, dict) or value.get("version") != 1:
        return False
    texts = [value.get(name) for name in ("service", "fingerprint", "stem")]
    times = [value.get(name) for name in ("created_s", "sent_s", "accepted_s")]
    images = value.get("images")
    return (re.fullmatch(r"[0-9a-f-]{36}", str(value.get("id"))) is not None
            and value.get("state") in STATES
            and all(isinstance(text, str) for text in texts)
            and not {os.sep, os.altsep, "\0"} & set(value["stem"])  # it becomes a file's name; "we\\ird" is one on POSIX
            and isinstance(value.get("request"), dict)
            and (value.get("task_id") is None or is_task_id(value["task_id"]))
            and all(isinstance(value.get(name), (str, type(None))) for name in ("status", "suffix"))
            and all(time is None or _is_time(time) for time in times)
            and isinstance(images, list) and all(map(_is_image, images)))


def _is_image(value) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("error"), (dict, type(None))):
        return False
    if type(value.get("index")) is not int:
        return False
    return all(isinstance(value.get(name), (str, type(None))) for name in ("path", "url", "revised_prompt", "sha256"))


def _is_time(value) -> bool:
    # not a truth value, not NaN, and nothing that overflows
    return type(value) in (int, float) and 0 <= value < 1e11
