"""What a bare machine lacks: another interpreter through uv, or the packages through pip.

The only room that starts other programs (uv, pip, venv) and that writes to the user's cache folder, both only
where `packages` found something missing. Never touches the key (`here.child`, the environment of its children,
comes without it), the output folder or any Python installation. `here` are the surroundings, handed in.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from ..clock import SLICE_S

# How long the network may be silent, not how long a fetch may take: a slow line still works, but on a dead
# one uv and pip together end before the 10 s after which some agents' shells kill. pip is uv's second try.
UV_SILENCE_S, PIP_SILENCE_S = 3, 4
CHILD_LIMIT_S, LEFTOVER_S = 300, 3600
UNREACHABLE = re.compile("from versions: none|timed out|timeout|connect|resolution|dns error|unreachable", re.I)


def isolation() -> list:
    """The flag that keeps a child, or a successor, as isolated as this process is."""
    return ["-I"] if sys.flags.isolated else []


def go_on_with_uv(script: str, argv: list, clock, here, launcher: list) -> str:
    """Become the interpreter that uv names, or return in words why not.

    uv is asked in a child first: its failure (no network, a cache that is read-only in Codex's sandbox) must
    not take the place of the JSON answer. IMAGE2_UV stays set, so no process asks twice. UV_NO_CONFIG: the
    project around us could name an index of its own in a uv.toml, and so bring its own `requests`.
    """
    env = dict(here.child, IMAGE2_UV="ask", UV_NO_CONFIG="1")
    env.update(UV_HTTP_TIMEOUT=str(UV_SILENCE_S), UV_HTTP_RETRIES="0")
    status, out, err = _run([here.uv, "run", "--no-project", "--quiet", "--script", script], clock, env, os.sep)
    python = (out.splitlines() or [""])[-1]
    if status or not os.path.isabs(python):
        return _reason(err)
    env = dict(here.environment, IMAGE2_UV="done", IMAGE2_LAUNCHER=shlex.join(launcher))
    command = [python, *isolation(), script, *argv]
    if os.name == "nt":         # exec detaches there: the shell would not wait for the answer
        raise SystemExit(subprocess.call(command, env=env))  # noqa: S603  uv named it
    try:
        os.execve(python, command, env)  # noqa: S606  a shell would only stand between
    except OSError as error:
        return str(error)


def make(folder: str, requirements: list, clock, here, say) -> str | None:
    """Fetch the packages into `folder`; None, or in words why not.

    Only the packages, for this interpreter imports them itself. Made in a random sibling and renamed: a killed
    making leaves no half one, and of two parallel ones the first wins. pip is this interpreter's own, else that
    of a throw-away venv, which takes 3 s more.
    """
    parent, name = os.path.split(folder)
    new = None
    try:
        os.makedirs(parent, exist_ok=True)
        for leftover in glob.glob(os.path.join(glob.escape(parent), "*.new-*")):
            with contextlib.suppress(OSError):          # a parallel run has just taken its own away
                if time.time() - os.stat(leftover).st_mtime > LEFTOVER_S:
                    shutil.rmtree(leftover)
        shutil.rmtree(folder, ignore_errors=True)       # if there, it was found broken
        new = tempfile.mkdtemp(prefix=name + ".new-", dir=parent)
        say(f"image2: first run: fetching requests and python-dotenv into {folder} (once)")
        python, env = sys.executable, dict(here.child, TMPDIR=new)      # a killed pip leaves nothing in /tmp
        # Each child runs in the empty new folder: `-m` would import a pip.py of the user's project.
        if not importlib.util.find_spec("pip"):
            venv = os.path.join(new, "venv")
            status, out, err = _run([python, *isolation(), "-m", "venv", venv], clock, env, new)
            if status:
                return "this Python has no pip, and no venv to get it from: " + _reason(out + err)
            python = os.path.join(venv, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))
        target = os.path.join(new, "packages")
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:",
                   "--retries", "0", "--timeout", str(PIP_SILENCE_S), "--target", target]
        command = [python, *isolation(), "-m", "pip", "install", *options, *requirements]
        status, out, err = _run(command, clock, env, new)
        if status:
            return "pip could not fetch them: " + _reason(out + err)
        if not os.path.isdir(folder):                   # else a parallel run was first: its copy is as good
            os.rename(target, folder)
        return None
    except OSError as error:
        return f"the cache folder {parent} cannot be used: {error.strerror or error}"
    finally:
        if new:
            shutil.rmtree(new, ignore_errors=True)


def works(python: str, clock, here) -> bool:
    """Whether this interpreter runs at all: pyenv's shims are on PATH without it."""
    return _run([python, "-c", ""], clock, here.child, os.sep)[0] == 0


def _run(command: list, clock, env: dict, cwd: str) -> tuple:
    """(status, stdout, stderr) of a child, which dies with all its children where this run is stopped."""
    child = subprocess.Popen(  # noqa: S603  a list, no shell, and nothing in it comes from an order
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding="utf-8", errors="replace", start_new_session=True)
    end = clock.now() + CHILD_LIMIT_S
    try:
        while clock.now() < end:
            try:
                out, err = child.communicate(timeout=SLICE_S)
                return child.returncode, out, err
            except subprocess.TimeoutExpired:
                clock.check()
        return 1, "", f"timed out after {CHILD_LIMIT_S} s"
    finally:
        if child.poll() is None:
            child.kill() if os.name == "nt" else os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _reason(text: str) -> str:
    """Why pip, venv or uv failed: their own line, without the credentials of an index URL."""
    if "No space left" in text:
        return "the disk is full"
    if UNREACHABLE.search(text):
        return "the package index cannot be reached"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it does not say why"]
    said = next((line for line in lines if line.lower().startswith("error")), lines[-1])
    return re.sub(r"//[^/@\s]+@", "//", said)[:200]
