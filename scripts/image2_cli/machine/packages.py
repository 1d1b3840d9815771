"""The packages: whether they are here, and on a bare machine what to do about it.

Looks and decides; `fetching` does what has to be done, and is loaded only then. Writes nothing, starts nothing.
From the environment it reads, in `_surroundings` alone: where the cache folder and uv are, whether fetching is
forbidden, signs of a host's sandbox, and what this process was told by the one that started it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
from types import SimpleNamespace

from ..answer import shell
from ..errors import Image2Error
from .settings import host_sandbox

MODULES = {"python-dotenv": "dotenv"}       # where the module is not called like its package
UV_SITE = "https://docs.astral.sh/uv/"


def _surroundings() -> SimpleNamespace:
    """The only look at the environment, of which uv and pip get `child`."""
    env, home = os.environ, os.path.expanduser
    if os.name == "nt":
        cache = os.path.join(env.get("LOCALAPPDATA") or home("~/AppData/Local"), "image2", "cache")
    elif sys.platform == "darwin":
        cache = home("~/Library/Caches/image2")
    else:
        xdg = env.get("XDG_CACHE_HOME", "")
        cache = os.path.join(xdg if os.path.isabs(xdg) else home("~/.cache"), "image2")
    uv, virtual = shutil.which("uv"), env.get("VIRTUAL_ENV", "")
    child = {name: value for name, value in env.items() if name.upper() != "IMAGE2_API_KEY"}
    # Many a pip.conf says `user` or `require-virtualenv`, which --target refuses. RES_OPTIONS: where packets
    # to the name server vanish, glibc would try for 20 s, deaf to pip's own limit.
    child.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", RES_OPTIONS="timeout:2 attempts:1")
    return SimpleNamespace(
        cache=os.path.abspath(cache), environment=dict(env), child=child, uv=uv and os.path.abspath(uv),
        # UV alone says little: a shell that `uv run` started hands it on to everything.
        in_uv="UV" in env and os.path.realpath(virtual) == os.path.realpath(sys.prefix)
        and os.path.basename(os.path.dirname(virtual)).startswith("environments"),
        asked_uv="IMAGE2_UV" in env, launcher=env.get("IMAGE2_LAUNCHER"),
        forbidden=env.get("IMAGE2_NO_INSTALL", "0") not in ("", "0"),
        sandbox=host_sandbox(env))


def ranges(script: str) -> dict:
    """{"python": "3.10", "requests": "2.33.0,<3"...}: what follows `>=` in the PEP 723 block of `script`."""
    with open(script, encoding="utf-8") as file:
        block = file.read().partition("# /// script\n")[2].partition("# ///\n")[0]
    return dict(re.findall(r'([\w-]+)(?: = ")?>=([^"]+)"', block.replace("requires-python", "python")))


def requirements(script: str) -> list:
    """["requests>=2.33.0,<3"...], as pip takes them."""
    return [f"{name}>={span}" for name, span in ranges(script).items() if name != "python"]


def numbers(version: str) -> tuple:
    """Of "2.33,<3" (2, 33, 0); what follows the first number, like rc1 or +local, does not count."""
    parts = [int(part) for part in re.match(r"[\d.]*", version).group().split(".") if part]
    return tuple((parts + [0, 0, 0])[:3])


def shortcomings(script: str) -> list:
    """What this interpreter lacks, in words; empty where all is well.

    Looks only, imports none of the packages. importlib.metadata is no extra cost: requests imports it too.
    """
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    wanted = ranges(script)
    floor = wanted.pop("python")
    if sys.version_info[:3] < numbers(floor):
        return [f"this is Python {sys.version.split()[0]}, {floor} or newer is needed"]
    missing, old = [], []
    for name, span in wanted.items():
        try:
            here = find_spec(MODULES.get(name, name)) and version(name)
        except PackageNotFoundError:
            here = None
        if not here:
            missing.append(name)
        elif numbers(here) < numbers(span):
            old.append(f"{name} {here} is here, {span.partition(',')[0]} or newer is needed")
    return old + ([f"missing here: {', '.join(missing)}"] if missing else [])


def ensure(script: str, argv: list, clock, say=None) -> None:
    """Return when the packages can be imported; may become another process and not return.

    `say(line)` gets the one line for people. Raises `Image2Error` missing_dependency, and `Interrupted` where a
    signal comes while a child runs. Call it before stdin is read: who takes over must find it untouched.
    """
    facts = shortcomings(script)
    if not facts:
        return
    from . import fetching

    script, here = os.path.abspath(script), _surroundings()
    too_old = sys.version_info[:3] < numbers(ranges(script)["python"])
    if here.forbidden:
        facts.append("IMAGE2_NO_INSTALL forbids fetching")
    else:
        private = os.path.join(here.cache, _key(script))
        if not too_old and _use(private, script):
            return
        if here.uv and not here.asked_uv:
            failure = fetching.go_on_with_uv(script, argv, clock, here, launcher())
            facts.append("uv could not help: " + failure)
        if not too_old:
            failure = fetching.make(private, requirements(script), clock, here, say or _say)
            if not failure and _use(private, script):
                return
            facts.append(failure or f"what was fetched into {private} cannot be imported")
        if here.sandbox:
            facts.append("%s's sandbox may forbid it: allow this command the network and that folder" % here.sandbox[0])
    todo, remedy = _newer_python(script, argv, clock, here) if too_old else _by_hand(script, argv, here)
    raise Image2Error("missing_dependency", f"{'; '.join(facts)}. {todo}.", remedy=remedy)


def launcher() -> list:
    """How to start the script again, as the user typed it: ["python3"], ["uv", "run"]..."""
    here = _surroundings()
    if here.launcher:
        return shlex.split(here.launcher)
    if here.in_uv and here.uv:
        return ["uv", "run"]
    typed = getattr(sys, "orig_argv", ["python3"])[0]       # Python 3.8 and 3.9 do not tell
    bare = os.path.basename(typed) == typed and shutil.which(typed)
    return [typed if bare else sys.executable, *(["-I"] if sys.flags.isolated else [])]


def _key(script: str) -> str:
    """The private copy's name: another Python, platform or range is another copy."""
    import hashlib
    import sysconfig

    spans = hashlib.sha256(repr(requirements(script)).encode()).hexdigest()[:8]
    return f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}-{spans}"


def _use(folder: str, script: str) -> bool:
    """Put the private copy behind the script's own folder; False, and all as before, if it is not whole.

    This very interpreter imports it, so nothing is started anew. It is really imported, for a cache folder
    loses single files (cleaners go by age), and the caller needs it in a moment anyway.
    """
    import importlib

    if not os.path.isdir(folder):
        return False
    sys.path.insert(1, folder)
    importlib.invalidate_caches()
    try:
        if not shortcomings(script):
            importlib.import_module("dotenv")
            importlib.import_module("requests")
            return True
    except Exception:       # a torn file raises anything: ImportError, SyntaxError, ValueError, EOFError
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(folder):
                del sys.modules[name]
    sys.path.remove(folder)
    return False


def _newer_python(script: str, argv: list, clock, here: SimpleNamespace) -> tuple:
    """What to do, and the same command with a Python that is new enough, if there is one."""
    from .fetching import works

    for python in [f"python3.{minor}" for minor in range(14, 9, -1)]:
        if shutil.which(python) and works(shutil.which(python), clock, here):
            return _again([python], script, argv)
    if here.uv and here.forbidden:
        return _again(["uv", "run"], script, argv)
    return f"Run it with Python 3.10 or newer, or install uv ({UV_SITE})", None


def _by_hand(script: str, argv: list, here: SimpleNamespace) -> tuple:
    """What to do, and the command that brings the packages, with all the time that pip and uv want for it."""
    from importlib.util import find_spec
    from sysconfig import get_path

    if here.uv and here.forbidden:
        return _again(["uv", "run"], script, argv)
    if not find_spec("pip"):
        return f"Install pip for this Python (Debian: apt install python3-pip) or uv ({UV_SITE})", None
    install = " -m pip install " + " ".join(f'"{requirement}"' for requirement in requirements(script))
    if sys.prefix == sys.base_prefix and os.path.exists(os.path.join(get_path("stdlib"), "EXTERNALLY-MANAGED")):
        # PEP 668: pip would refuse the system's Python. Not by `python3`, which was a 3.8.
        venv = os.path.expanduser(os.path.join("~", ".image2-venv"))
        python = os.path.join(venv, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))
        return _again([python], script, argv, shell([sys.executable, "-m", "venv", venv]), shell([python]) + install)
    return "Run `next`, then this command again", shell(launcher()) + install


def _again(python: list, script: str, argv: list, *before: str) -> tuple:
    """What to do, and the commands `before` and this one; without it where it reads stdin, which `next` finds empty."""
    parts = [part for word in argv for part in (word, word.partition("=")[2])]
    if any(one == "-" or os.path.exists(one) and not (os.path.isfile(one) or os.path.isdir(one)) for one in parts):
        return (("Run `next`, then" if before else "Run") + f" this command again with {shell(python)}",
                " && ".join(before) or None)
    folder = []
    if os.name != "nt":
        with contextlib.suppress(OSError):      # it is gone
            folder = [shell(["cd", os.getcwd()])]
    return "Run `next`", " && ".join([*before, *folder, shell([*python, script, *argv])])


def _say(line: str) -> None:
    if sys.stderr:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
