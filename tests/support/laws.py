"""The laws that hold for every run, whatever the network, the service or the text in between did.

A test file asserts what is special about its case, and `hold(done, service, project, budget)` the rest.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from aftermath import state as state
from image2_cli import errors
from image2_cli.pictures import image_check
from running import CANARY, SCRIPT, Run, assert_no_key, assert_no_leftovers

FAST = ("--poll-interval", "0.05")
GRACE_S = 5.0  # past the budget of a run
MOST_BYTES = 16_384
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")


def hold(done: Run, service: Any, folder: Path | str, budget: float, key: str = CANARY) -> dict:
    """Assert the laws of one run in `folder` against `service` (None: none was there); returns its answer."""
    answer = done.json
    assert len(done.stdout.encode()) < MOST_BYTES, f"an answer of {len(done.stdout)} characters"
    assert service is None or service.orders <= 1, f"{service.orders} orders were accepted\n{done}"
    assert done.seconds <= budget + GRACE_S * _crowd(), f"{done.seconds:.1f} s, with a budget of {budget} s\n{done}"
    assert not UNSEEN.search(done.stdout.rstrip("\n")), f"characters that nobody sees\n{done!r}"
    assert "Traceback" not in done.stdout + done.stderr, done
    assert "internal" != (answer["error"] or {}).get("code"), done
    if answer["error"]:
        exit_status = errors.CODES[answer["error"]["code"]].exit_status
        assert exit_status == done.exit, f"{answer['error']['code']} is exit {exit_status}\n{done}"
    if answer["next"] and service is not None:
        assert "wait" in answer["next"].split() and "generate" not in answer["next"].split(), answer["next"]
    _check_pictures(answer, Path(folder))
    if done.exit not in (8, 10, 130, 143):  # else a download may go on where it stopped
        assert_no_leftovers(folder)
    assert_no_key(Path(folder).parent if Path(folder).name == "project" else folder, key)
    return answer


def tokens(text: str, *folders: Any) -> float:
    """The size of an answer in tokens, which are four characters; a folder, the script and Python count little."""
    shorter = [(folder, "/") for folder in folders]
    for path, short in (*shorter, (SCRIPT, "/"), (sys.executable, "python3")):
        for spelled in {str(path), str(path).replace(os.sep, "/")}:
            text = text.replace(json.dumps(spelled)[1:-1], short)
    return len(text) / 4


def assert_answer_budget(done: Run, most: float, *folders: Any) -> None:
    """The answer takes no more than so many tokens of an agent's context."""
    assert tokens(done.stdout, *folders) <= most, f"{tokens(done.stdout, *folders):.0f} tokens, {most} are meant\n{done}"


def _crowd() -> float:
    """How many times longer everything takes where the machine has more to do than these tests; at least 1."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    return max(1.0, os.getloadavg()[0] / (3 * (os.cpu_count() or 1)))


def _check_pictures(answer: dict, folder: Path) -> None:
    for image in answer["images"]:
        assert ("path" in image) and ("url" in image), image
        if image["path"]:
            path = Path(image["path"])
            assert path.is_absolute() and path.stat().st_size == image["bytes"], image
            if path.suffix in PICTURES:
                assert (image["width"], image["height"]) == size_of(path)
        else:
            assert image.get("error") or not answer["ok"] or image["url"], image
    for path in folder.rglob("*"):
        if path.suffix in PICTURES:
            size_of(path)


def size_of(path: Path) -> tuple[int, int]:
    """(width, height); raises for whatever is no whole picture."""
    with path.open("rb") as file:
        found = image_check.inspect(file)
    return found.width, found.height
