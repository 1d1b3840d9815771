"""The one JSON object a run ends with. Pure: values in, a dict out; `main` prints it.

Every word costs the reader's budget, so what is null for every image or only repeats the prompt is left out.
"""

from __future__ import annotations

import json
import os

from .errors import NO_PICTURE, Image2Error, of_image

MAX_BYTES = 60_000  # of one answer
FEW = 10


def of_order(order, error=None, status=None, next_command=None, stand_in=False) -> dict:
    """The answer of `generate`, `wait` and `status` for one order, however it ended."""
    task = order.task
    prompt = ((order.record or {}).get("request") or {}).get("prompt")
    images = order.images or [_seen(image) for image in (task.images if task else ()) if image.url or image.error]
    answer = {
        "ok": error is None,
        "status": status or (task.status if task else None) or (error.code if error else "completed"),
        "task_id": order.task_id,
        "charged": "no" if stand_in else (error.charged if error and order.charged == "no" else order.charged),
        "images": [_image(image, prompt) for image in images],
        "error": error.as_json() if error else None,
        "next": next_command,
    }
    unrecorded = error and error.code == "task_not_found" and not order.record
    if (unrecorded or (error and error.code == "task_failed")) and not stand_in:
        answer["charged"] = "maybe"
    if stand_in:
        answer["sandbox"] = True
    if order.resumed:
        answer["resumed"] = True
    if order.warnings:
        answer["warnings"] = list(dict.fromkeys(order.warnings))
    if task and task.progress is not None and task.outcome == "running":
        answer["progress"] = task.progress
    return answer


def of_error(error: Image2Error) -> dict:
    """The answer where there is no order to speak of."""
    return {"ok": False, "status": error.code, "task_id": None, "charged": error.charged, "images": [],
            "error": error.as_json(), "next": error.remedy}


def plain(status: str, **more) -> dict:
    """The answer of verbs that make nothing: what they found goes into `more`."""
    return {"ok": True, "status": status, "task_id": None, "charged": "no", "images": [], "error": None, "next": None,
            **more}


def text(answer: dict) -> bytes:
    """One line of UTF-8; readable in any script, whole whatever a string holds, and bounded."""
    line = _line(answer)
    if len(line) > MAX_BYTES:  # the records keep what is left out here
        line = _line({**answer, "images": [_shorter(image) for image in answer["images"]]})
    if len(line) > MAX_BYTES:
        images = answer["images"][:FEW]
        more = "%d more images are left out here." % (len(answer["images"]) - len(images))
        line = _line({**answer, "images": [_shorter(image) for image in images],
                      "warnings": [*answer.get("warnings", ())[:FEW], more]})
    return line


def changed(value, change):
    """The value with every text in it, names of members apart, replaced by `change(text)`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [changed(item, change) for item in value]
    if isinstance(value, dict):
        return {name: changed(item, change) for name, item in value.items()}
    return value


def _line(answer: dict) -> bytes:
    line = json.dumps(answer, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    return line.encode("utf-8", "replace") + b"\n"


def _shorter(image: dict) -> dict:
    left_out = ("revised_prompt", "url") if image.get("path") else ("revised_prompt",)
    return {name: value for name, value in image.items() if name not in left_out}


def shell(words) -> str:
    """A command that runs as it stands in this machine's shell."""
    if os.name == "nt":
        from subprocess import list2cmdline

        return list2cmdline(words)
    import shlex

    return " ".join(shlex.quote(word) for word in words)


def _seen(image) -> dict:
    error = of_image("task_failed", NO_PICTURE, image.error) if image.error else None
    return {"index": image.index, "path": None, "url": image.url, "revised_prompt": image.revised_prompt, "error": error}


def _image(image: dict, prompt) -> dict:
    from .service.task import clean

    told = {name: image.get(name) for name in ("index", "path", "width", "height", "url", "revised_prompt", "error")}
    if told["revised_prompt"] == clean(prompt, 1000):
        told["revised_prompt"] = None
    return {name: value for name, value in told.items() if value is not None or name in ("path", "url")}
