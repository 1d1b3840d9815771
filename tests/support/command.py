"""One order as a command that can be repeated, by either verb: the money law is asked of both by the same code.

    told = command("--n", "2")     # a whole run; told.end is (exit status, error.code, charged)
    command.killed("poll", 2)      # a run that is killed at its second look
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from faulty import completed, ok, picture
from laws import hold
from pictures import png
from running import Run

PNG = png(64, 64)
QUICK = ("--poll-interval", "0.1", "--timeout", "20")


def quick(*flags) -> tuple:
    """The flags, with those of QUICK that are not among them."""
    pairs = zip(QUICK[::2], QUICK[1::2])
    return (*flags, *(word for pair in pairs if pair[0] not in flags for word in pair))


class Told(NamedTuple):
    """What a run said of the order, whichever verb it was. `files` are the names of its pictures, None for one not there."""

    exit: int
    code: str | None
    charged: str
    files: tuple
    resumed: bool
    reason: str | None
    task_id: str | None
    warnings: str
    answer: dict
    run: Run

    @property
    def end(self) -> tuple:
        return self.exit, self.code, self.charged


class Command:
    """A picture of a cat in out/cat.png, ordered by `verb`. Called: one whole run."""

    def __init__(self, verb, service, project, run, start, tmp_path):
        self.verb, self.service, self.project, self.run, self.start = verb, service, project, run, start
        self.out, self._tmp, self._meddled = project / "out", tmp_path, 0
        (project / "orders.jsonl").write_text(json.dumps({"prompt": "a cat", "name": "cat.png"}) + "\n")
        self.words = {"generate": ("generate", "a cat", "--out", "out/cat.png"),
                      "batch": ("batch", "orders.jsonl", "--out", "out")}[verb]

    def by(self, verb: str) -> Command:
        """That very order by another verb."""
        return Command(verb, self.service, self.project, self.run, self.start, self._tmp)

    def __call__(self, *flags, **options) -> Told:
        return self.told(self.begin(*flags, **options).finish())

    def begin(self, *flags, **options):
        return self.start(*self.words, *quick(*flags), **options)

    @property
    def pictures(self) -> list[str]:
        """The names of the pictures in out/; that each is a whole one is a law of every run."""
        return sorted(path.name for path in self.out.glob("*.png"))

    def told(self, done: Run, budget: float = 20) -> Told:
        """The answer of a run of either verb; the laws of every run hold."""
        answer = hold(done, None, self.project, budget)
        line = answer
        if answer.get("results"):
            lines = [json.loads(text) for text in Path(answer["results"]).read_text(encoding="utf-8").splitlines()]
            line = lines[0]
        error = line["error"] or answer["error"] or {}
        files = tuple(image["path"] and os.path.basename(image["path"]) for image in line["images"])
        warnings = " ".join([*answer.get("warnings", ()), *line.get("warnings", ())])
        resumed = bool(line.get("resumed") or answer.get("resumed") or "earlier runs" in warnings)
        return Told(done.exit, (answer["error"] or {}).get("code"), answer["charged"], files, resumed,
                    error.get("server_message"), line["task_id"], warnings, answer, done)

    def killed(self, kind: str, count: int = 1, *flags) -> None:
        """Run it until the service has had that request, and kill it."""
        before = len([one for one in self.service.requests if one.kind == kind])
        busy = self.begin(*flags)
        self.service.wait_for(kind, before + count)
        kill(busy)

    def heal(self) -> None:
        """From now on the service does all it should."""
        self.service.on_post(ok())
        self.service.on_poll(completed())
        self.service.on_file(picture(PNG))

    def meddle(self, code: str) -> dict:
        """An environment in which a run begins with this Python code."""
        self._meddled += 1
        folder = self._tmp / f"meddle-{self._meddled}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": folder}


def kill(process) -> None:
    process.kill()
    process.communicate(timeout=5)


def until(true, seconds: float = 10.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)
