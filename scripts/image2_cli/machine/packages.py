"""The packages: whether they are here, and how this script is started again.

Looks only: imports none of the packages, writes nothing, starts nothing. What a machine without them tries is in `fetching`,
loaded only there.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import Callable, Mapping, Optional

from ..clock import Clock

MODULES = {"python-dotenv": "dotenv"}  # where the module is not called like its package
LAUNCHER = "IMAGE2_LAUNCHER"  # how the process was started that this one took over from


def requirements(script: str) -> list[tuple[str, str, str]]:
    """(name, floor, ceiling) of each; the ranges stand in the PEP 723 block of `script` alone."""
    with open(script, encoding="utf-8") as file:
        return re.findall(r'^#   "([\w-]+)>=([\d.]+),<([\d.]+)",$', file.read(), re.M)


def numbers(version: str) -> tuple[int, ...]:
    """Of "2.33" (2, 33, 0). What follows the numbers, like rc1 or +local, does not count: 3.0.0rc1 is not below 3."""
    parts = re.split(r"[^\d.]", version)[0].split(".")
    return tuple([*(int(part) for part in parts if part), 0, 0, 0][:3])


def shortcomings(script: str) -> list[str]:
    """What this interpreter lacks, in words; empty where all is well."""
    from importlib.metadata import PackageNotFoundError, version  # no extra cost: urllib3 imports it too
    from importlib.util import find_spec

    missing, unfit = [], []
    for name, floor, ceiling in requirements(script):
        try:
            here = version(name) if find_spec(MODULES.get(name, name)) else None
        except PackageNotFoundError:
            here = None
        if not here:
            missing.append(name)
        elif not numbers(floor) <= numbers(here) < numbers(ceiling):
            unfit.append(f"{name} {here} is here, {floor} or newer and below {ceiling} is needed")
    return unfit + ([f"missing here: {', '.join(missing)}"] if missing else [])


def ensure(script: str, argv: list[str], clock: Clock, write: Callable[[str], None]) -> None:
    """Return when the packages can be imported; may become another process and not return.

    `write` gets the one line for people. Raises `Image2Error` missing_dependency, and `Interrupted` for a signal while a
    child runs. Call it before stdin is read: who takes over must find it untouched.
    """
    if not shortcomings(script):
        return
    from .fetching import Bare, bring

    words = launcher()
    os.environ[LAUNCHER] = shlex.join(words)
    wanted = [f"{name}>={floor},<{ceiling}" for name, floor, ceiling in requirements(script)]
    bring(Bare(os.path.abspath(script), argv, clock, write, lambda: shortcomings(script), wanted, words, find_program("uv")))


def find_program(name: str, environment: Mapping[str, str] = os.environ) -> Optional[str]:
    """A program on PATH: from its absolute entries only, never from the working folder, whatever PATH says."""
    name += ".exe" if os.name == "nt" else ""
    here = os.path.realpath(os.curdir)
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, name)
        if os.path.isabs(folder) and os.path.realpath(folder) != here and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def launcher(environment: Mapping[str, str] = os.environ, os_name: str = os.name) -> list[str]:
    """How this user starts the script again: ["python3"], ["uv", "run"], ["py", "-3"], else the interpreter's path.

    A bare word where there is one, for PowerShell wants an `&` before a quoted path. On Windows any `python` but this one
    may be the Store's stub, which only prints; `py` is none.
    """
    if environment.get(LAUNCHER):
        return shlex.split(environment[LAUNCHER])
    if os.path.basename(os.path.dirname(sys.prefix)).startswith("environments-") and find_program("uv", environment):
        return ["uv", "run"]  # it began this one: the environment lies in uv's cache
    names = ("python", "python3") if os_name == "nt" else ("python3", "python")
    word = next((name for name in names if _place(find_program(name, environment)) == _place(sys.executable)), None)
    isolation = ["-I"] if sys.flags.isolated else []
    if not word and os_name == "nt" and find_program("py", environment):
        return ["py", "-3", *isolation]
    return [word or sys.executable, *isolation]


def _place(path: Optional[str]) -> tuple[str, str]:
    """Which program that is: the folder too, for the `python3` of another environment may be a link to the same file."""
    return (os.path.realpath(path), os.path.realpath(os.path.dirname(path))) if path else ("", "")
