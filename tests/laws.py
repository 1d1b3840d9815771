"""The laws that hold for every run, whatever the network, the service or the text in between did.

    done = run("generate", "a cat", "--timeout", "5", timeout=30)
    answer = hold(done, service, project, budget=5)

A test file asserts what is special about its case, and `hold` the rest.
"""

import json
import os
import re
from pathlib import Path

from image2_cli import errors
from image2_cli.pictures import image_check as raster
from running import CANARY, Run, assert_no_key, assert_no_leftovers

FAST = ("--poll-interval", "0.05")
GRACE_S = 5.0  # past the budget of a run
MOST_BYTES = 65536
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")


def hold(done: Run, service, folder, budget: float, key: str = CANARY) -> dict:
    """Assert the laws of one run in `folder` against `service` (None: none was there); returns its answer."""
    answer = done.json
    assert len(done.stdout.encode()) < MOST_BYTES, f"an answer of {len(done.stdout)} characters"
    assert service is None or service.orders <= 1, f"{service.orders} orders were accepted\n{done}"
    assert done.seconds <= budget + GRACE_S * _crowd(), f"{done.seconds:.1f} s, with a budget of {budget} s\n{done}"
    assert not UNSEEN.search(done.stdout.rstrip("\n")), f"characters that nobody sees\n{done!r}"
    assert "Traceback" not in done.stdout + done.stderr, done
    assert "internal" != (answer["error"] or {}).get("code"), done
    if answer["error"]:
        exit_status = errors.CODES[answer["error"]["code"]][0]
        assert exit_status == done.exit, f"{answer['error']['code']} is exit {exit_status}\n{done}"
    if answer["next"] and service is not None:
        assert "wait" in answer["next"].split() and "generate" not in answer["next"].split(), answer["next"]
    _check_pictures(answer, Path(folder))
    assert_no_leftovers(folder)
    assert_no_key(Path(folder).parent if Path(folder).name == "project" else folder, key)
    return answer


def _crowd() -> float:
    """How many times longer everything takes where the machine has more to do than these tests; at least 1."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    return max(1.0, os.getloadavg()[0] / (3 * (os.cpu_count() or 1)))


def _check_pictures(answer: dict, folder: Path) -> None:
    for image in answer["images"]:
        assert ("path" in image) and ("url" in image), image
        if image["path"]:
            assert Path(image["path"]).is_absolute()
            with open(image["path"], "rb") as file:
                assert (image["width"], image["height"]) == tuple(raster.inspect(file))[1:3]
        else:
            assert image.get("error") or not answer["ok"] or image["url"], image
    for path in folder.rglob("*"):
        if path.suffix in PICTURES:
            with path.open("rb") as file:
                raster.inspect(file)  # raises for whatever is no whole picture


def records(folder) -> list[dict]:
    """The records below `folder`, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(Path(folder).rglob(".image2/*.json"))]


def state(folder) -> str | None:
    """The state of the one record below `folder`; None where there is no record."""
    found = records(folder)
    assert len(found) <= 1, found
    return found[0]["state"] if found else None
