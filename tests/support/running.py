"""Runs the script as its users do: a process, in another folder, with an environment that holds nothing else.

`run` waits for the end, `start` gives a Popen; the fixtures of those names know the service and the folder.
The environment has PATH, HOME, LANG and the two variables of image2, never the developer's proxies, CA bundles or
key; `env` adds to it, None takes away. No run may show the key, so the output of every run is searched for it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "image2.py"
CANARY = "canary-0123-not-a-real-one"
EXITS = {*range(11), 130, 143}
# What Windows starts no useful process without: a Python without SYSTEMROOT has no sockets (WinError 10106).
SYSTEM = ("SYSTEMROOT", "TEMP", "TMP", "LOCALAPPDATA", "PATHEXT", "COMSPEC") if os.name == "nt" else ()
COVERAGE = "COVERAGE_PROCESS_CONFIG"  # what coverage's own start-up file looks for


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left behind: `stdout` and `stderr` are text, `exit` is negative where a signal killed it."""

    argv: Any
    exit: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> dict:
        """The answer: stdout is one JSON object on one line, and the exit status a documented one."""
        assert self.exit in EXITS, f"exit status {self.exit} is in no table\n{self}"
        assert self.stdout.endswith("\n") and self.stdout.count("\n") == 1, f"stdout is not one line\n{self}"
        self.stdout.encode()  # bytes that are no UTF-8 came in as surrogates, which fail here
        answer = json.loads(self.stdout, parse_constant=_refuse_constant)
        assert isinstance(answer, dict), f"stdout is not an object\n{self}"
        _check_answer(answer, self.exit)
        return answer

    def __str__(self) -> str:
        return f"$ {self.argv}\n[{self.exit} in {self.seconds:.2f} s]\n{self.stdout}\n{self.stderr}"


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def _check_answer(answer: dict, exit_status: int) -> None:
    """The members that every answer has are of the documented kinds; their values are the tests' business."""
    assert answer["ok"] is (exit_status == 0), (answer, exit_status)
    assert isinstance(answer.get("status", ""), str), answer
    assert answer.get("charged", "no") in ("yes", "maybe", "no"), answer
    assert answer["next"] is None or (isinstance(answer["next"], str) and answer["next"]), answer
    error = answer["error"]
    if error is not None:
        assert not answer["ok"], answer
        assert re.fullmatch(r"[a-z][a-z0-9_]*", error["code"]), answer
        assert isinstance(error["message"], str) and error["message"], answer
        assert isinstance(error["retryable"], bool), answer


class Started(subprocess.Popen):
    """A run under way. `finish()` waits; what is alive after `timeout` is killed, and the test fails."""

    def __init__(self, argv: list[str] | str, env: dict, cwd: Any, **popen: Any) -> None:
        key = env.get("IMAGE2_API_KEY", "")  # may be broken on purpose: no long stretch of it may be seen
        self.secrets = {CANARY, *(piece for piece in key.split() if len(piece) >= 8)}
        self.began = time.monotonic()
        self._tmp: tempfile.TemporaryDirectory | None = None
        if cwd is None:
            self._tmp = tempfile.TemporaryDirectory(prefix="image2-test-")
            cwd = self._tmp.name
        env = whole({"HOME": str(cwd), **env})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        super().__init__(argv, env=env, cwd=cwd, **{**pipes, **popen})

    def finish(self, timeout: float = 60) -> Run:
        try:
            output = self.communicate(timeout=timeout)
            late = False
        except subprocess.TimeoutExpired:
            self.kill()
            output = self.communicate(timeout=5)
            late = True
        seconds = time.monotonic() - self.began
        stdout, stderr = ((data or b"").decode("utf-8", "surrogateescape") for data in output)
        done = Run(self.args, self.returncode, stdout, stderr.replace(os.linesep, "\n"), seconds)
        if self._tmp:
            self._tmp.cleanup()
        assert not late, f"still running after {timeout} s\n{done}"
        shown = [secret for secret in self.secrets if secret in done.stdout + done.stderr]
        assert not shown, f"the key was shown\n{done}"
        return done


def start(*argv: Any, env: dict | None = None, cwd: Any = None, stdin: Any = None, key: str | None = CANARY,
          base_url: str | None = None, python: str = sys.executable, flags: tuple = (), script: Path | str = SCRIPT,
          **popen: Any) -> Started:
    """Begin a run. `stdin` is text, bytes or a file, otherwise empty; `popen` goes to Popen as it is."""
    own = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "IMAGE2_API_KEY": key, "IMAGE2_BASE_URL": base_url}
    wanted = {**own, **(env or {})}
    environment = {name: str(value) for name, value in wanted.items() if value is not None}
    command = [str(part) for part in (python, *flags, script, *argv)]
    if not isinstance(stdin, (str, bytes)):
        stdin = subprocess.DEVNULL if stdin is None else stdin
        return Started(command, environment, cwd, stdin=stdin, **popen)
    with tempfile.TemporaryFile() as file:  # a file, not a pipe: it is all there before the process begins
        file.write(stdin.encode() if isinstance(stdin, str) else stdin)
        file.seek(0)
        return Started(command, environment, cwd, stdin=file, **popen)


def whole(env: dict) -> dict:
    """An environment that has a HOME, with what this system, and a measurement of coverage, need besides."""
    if os.name == "nt":
        env = {"USERPROFILE": env["HOME"], **env}
    return {**{name: os.environ[name] for name in (COVERAGE, *SYSTEM) if name in os.environ}, **env}


def run(*argv: Any, timeout: float = 60, **options: Any) -> Run:
    """A whole run, with the options of `start`."""
    return start(*argv, **options).finish(timeout)


def _files(folder: Path | str) -> list[Path]:
    assert Path(folder).is_dir(), f"{folder} is no folder, so nothing was searched"
    return sorted(Path(folder).rglob("*"))


def assert_no_key(folder: Path | str, key: str = CANARY) -> None:
    """Neither a name nor the content of anything below this folder shows the key."""
    for path in _files(folder):
        assert key not in path.name, f"the key is in the name {path}"
        if path.is_file() and not path.is_symlink():
            assert key.encode() not in path.read_bytes(), f"the key is in {path}"


def assert_no_leftovers(folder: Path | str) -> None:
    """No unfinished download lies anywhere below this folder; what a kill leaves of a record is swept after a minute."""
    assert [] == [path for path in _files(folder) if path.name.endswith(".part") and ".image2" not in path.parts]
