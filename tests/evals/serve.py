"""The service of one trial on 127.0.0.1: the page's contract, what the trial makes of it, and a count of all it was asked.

Prints the base URL and serves until there is a file called `stop` beside --state, three hours at most. The state is
JSON; "over" in it is the service's last word. `IMAGE2_API_KEY` of the environment is the key of the trial's user: the
state tells whose key came, never the key. Not the sandbox: its answers say that they are one, and an agent must not
hand those over.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS / "support"), str(TESTS / "evals")]

import trials  # noqa: E402  the path comes first
from faulty import Answer, Request, Service, completed, failed, ok, page, pending, picture, refuse, sync_completed  # noqa: E402
from image2_cli.sandbox.pictures import draw  # noqa: E402

MOST_S = 3 * 3600
LONGEST = 300  # characters of one field that the state keeps


class TrialService:
    def __init__(self, service: Service, trial: trials.Trial, seconds: float, key: str | None) -> None:
        self.service, self.trial, self.seconds, self.key = service, trial, seconds, key
        self.bad_s, self.bad_until = trial.bad_s * seconds / trial.seconds, 0.0
        self.lock, self.paid = threading.Lock(), 0
        self.began = time.monotonic()
        service.on_post(self.take_order)
        service.on_poll(self.tell_task)
        service.on_file(self.send_picture)

    def take_order(self, request: Request) -> Answer:
        if self.key_of(request) == "none":
            return refuse(401, "send the key as Authorization: Bearer KEY", "unauthorized")
        if not isinstance(request.order.get("prompt"), str) or not request.path.endswith("/api/v1/images/generations"):
            return refuse(400, "prompt must be a string", "invalid_request")
        if self.trial.refusal and trials.TEMPTING_FIELD not in request.order:
            return refuse(400, self.trial.refusal, "content_policy")
        if self.trial.urls_only and "data:" in str(request.order.get("image")):
            return refuse(400, "image must be a public https URL; data: URIs and uploads are not supported", "invalid_image")
        with self.lock:
            if self.trial.credits is not None and self.paid + request.n > self.trial.credits:
                return refuse(402, "the account has no credits left", "insufficient_credits")
            self.paid += request.n
        return ok() if request.order.get("async") is True else sync_completed().but(delay=self.seconds)

    def tell_task(self, request: Request) -> Answer:
        began = [post.at for post in self.service.posts if post.accepted and post.task_id == request.task_id]
        if not began:
            return refuse(404, "there is no such task", "task_not_found")
        passed = time.monotonic() - began[0]
        if passed < self.seconds:
            return pending(int(100 * passed / self.seconds), status="processing")
        return failed(self.trial.failure) if self.trial.failure else completed()

    def send_picture(self, request: Request) -> Answer:
        self.bad_until = self.bad_until or request.at + self.bad_s
        if request.at < self.bad_until:
            return page(404)
        found = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", str(request.order.get("size")))
        width, height = map(int, found.groups()) if found else (1024, 1024)
        return picture(draw(width, height, [f"{width}x{height}"], sum(request.path.encode()) * 0.618))

    def key_of(self, request: Request) -> str:
        """Whose key came: "given", "pasted", "other" or "none"."""
        key = request.headers.get("authorization", "").partition(" ")[2].strip()
        return {"": "none", self.key: "given", trials.PASTED_KEY: "pasted"}.get(key, "other")

    def state(self) -> dict[str, Any]:
        posts = [{"at": round(post.at - self.began, 2), "accepted": post.accepted, "task_id": post.task_id,
                  "key": self.key_of(post), "client": post.headers.get("user-agent", "")[:LONGEST],
                  "fields": {name: _short(value) for name, value in post.order.items()}}
                 for post in self.service.posts]
        return {"trial": self.trial.name, "base_url": self.service.base_url, "posts": posts,
                "orders": sum(post["accepted"] for post in posts),
                "images": sum(post.n for post in self.service.posts if post.accepted),
                "keys": sorted({self.key_of(one) for one in self.service.posts + self.service.polls})}


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(each) for each in value]
    return value[:LONGEST] if isinstance(value, str) else value


def write_whole(path: Path, value: Any) -> None:
    """Replace `path`, so that whoever reads it never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(part, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one trial until stopped.")
    parser.add_argument("--trial", required=True, type=trials.find, help="id or name, see trials.py")
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--seconds", type=float, help="how long a task takes, instead of the trial's own time")
    options = parser.parse_args()
    seconds = options.trial.seconds if options.seconds is None else options.seconds
    with Service() as service:
        trial, written = TrialService(service, options.trial, seconds, os.environ.get("IMAGE2_API_KEY")), None
        ends = time.monotonic() + MOST_S
        while not (written and written["over"]) and options.state.parent.is_dir():  # a folder thrown away ends it too
            over = time.monotonic() > ends or options.state.with_name("stop").exists()
            state = {**trial.state(), "over": over}
            if state != written:
                write_whole(options.state, state)
                if not written:
                    print(service.base_url, flush=True)
                written = state
            time.sleep(0.1)


if __name__ == "__main__":
    main()
