"""What a machine without the packages tries, in this order: a private copy, uv, a private copy made by pip.

The only module that starts other programs (uv, pip, venv) and that writes to the user's cache folder. May not touch the
output folder or any Python installation; its children never see the key.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from typing import Callable, NamedTuple, Optional

from ..clock import Clock, Overdue
from ..errors import Image2Error
from ..text import shell
from .inputs import is_read_once
from .settings import KEY_NAME, host_sandbox

# How long the network may be silent, not how long a fetch may take: on a dead one uv and pip together end before the 10 s
# after which some agents' shells kill.
UV_SILENCE_S, PIP_SILENCE_S, CHILD_LIMIT_S = 2, 3, 300
PYTHON = [sys.executable, *(["-I"] if sys.flags.isolated else [])]  # children are as isolated as this process is
# What is kept of pip's settings; `target`, `constraint`, `user`, `require-hashes`, `no-deps` are about other installs.
KEPT = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST", "PIP_PROXY",
        "PIP_CERT", "PIP_CLIENT_CERT")
UNREACHABLE = "the package index cannot be reached"
REASONS = (  # how pip and uv say why, in the order in which it is looked for; else their own line is shown
    (r"certificate verify failed|UnknownIssuer|invalid peer certificate",
     "the certificate of the package index is not trusted here (PIP_CERT, SSL_CERT_FILE)"),
    (r"network was disabled|connection error|timed out|connect error|dns error|error sending request|ProxyError",
     UNREACHABLE),
    (r"error: ResolutionImpossible|conflicting dependencies|from versions: (?!none)|requirements are unsatisfiable",
     "a conflict of versions: the index, as it is set up here, has none that fit together"),
)


class Bare(NamedTuple):
    """A machine without the packages: what it lacks, the requirements as pip takes them, how this script is started."""

    script: str
    argv: list[str]
    clock: Clock
    write: Callable[[str], None]
    lacks: Callable[[], list[str]]
    wanted: list[str]
    words: list[str]
    uv: Optional[str]


def bring(bare: Bare) -> None:
    """Return when the packages can be imported, or become another process. Raises `Image2Error` missing_dependency."""
    facts, is_forbidden = bare.lacks(), os.environ.get("IMAGE2_NO_INSTALL", "0") not in ("", "0")
    for way in (use_copy,) if is_forbidden else (use_copy, go_on_with_uv, make_copy):  # the first only looks
        failure = way(bare)
        if failure is None:
            return
        facts += [failure] if failure else []
    host = host_sandbox()
    if is_forbidden:
        facts.append("IMAGE2_NO_INSTALL forbids fetching")
    elif host:
        facts.append(f"{host.name}'s sandbox may forbid it: allow this command the network and its cache folder")
    said, words, remedy = "; ".join(facts), ["uv", "run"] if is_forbidden else bare.words, None
    if not (bare.uv if is_forbidden else UNREACHABLE in said):
        install = shell([sys.executable, "-m", "pip", "install", "requests", "python-dotenv"])
        todo = f"Install requests and python-dotenv (`{install}`), or uv (https://docs.astral.sh/uv/)"
    elif any(is_read_once(part) for word in bare.argv for part in (word, word.partition("=")[2])):  # `next` has no stdin
        todo = f"To go on, run this command again with {shell(words)}"
    else:
        todo, remedy = "To go on, run `next`", shell([*words, bare.script, *bare.argv])
    raise Image2Error("missing_dependency", f"{said}. {todo}.", remedy=remedy)


def use_copy(bare: Bare) -> Optional[str]:
    """Put a private copy on sys.path, behind the script's own folder: None, or "" and all as before.

    It is really imported, for a cache folder loses single files (cleaners go by age), and the caller needs it in a moment.
    """
    for folder in filter(_is_private, _copies(bare.wanted)):
        sys.path.insert(1, folder)
        importlib.invalidate_caches()
        try:
            if not bare.lacks():
                importlib.import_module("dotenv")
                importlib.import_module("requests")
                return None
        except Exception:  # a torn file raises anything: ImportError, SyntaxError, ValueError, EOFError
            for name, module in list(sys.modules.items()):
                if (getattr(module, "__file__", None) or "").startswith(folder):
                    del sys.modules[name]
        sys.path.remove(folder)
    return ""


def make_copy(bare: Bare) -> Optional[str]:
    """Make one and use it: None, or why not. In a random sibling, then renamed: a killed making leaves no half one."""
    why = "no folder for them is this user's alone (XDG_CACHE_HOME names another)"
    for folder in _copies(bare.wanted):
        try:
            os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
            new = tempfile.mkdtemp(prefix=f"{folder}.new-")
        except OSError as error:
            why = f"the cache folder {os.path.dirname(folder)} cannot be used: {error.strerror or error}"
            continue
        try:
            failure = _fetch(bare, new, folder) or use_copy(bare)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return f"what was fetched into {folder} cannot be imported" if failure == "" else failure
    return why


def _fetch(bare: Bare, new: str, folder: str) -> Optional[str]:
    """Bring the packages into `folder`, by way of the empty folder `new`: None, or why not.

    Children run in `new`, for `-m` would import a pip.py of the user's project.
    """
    shutil.rmtree(folder, ignore_errors=True)  # if there, it was found broken
    bare.write(f"image2: first run: fetching requests and python-dotenv into {folder} (once)\n")
    pip, target = [*PYTHON, "-m", "pip"], os.path.join(new, "packages")
    if not importlib.util.find_spec("pip"):  # then that of a throw-away venv
        status, said = _run(bare.clock, [*PYTHON, "-m", "venv", os.path.join(new, "venv")], new)
        if status:
            return f"this Python has no pip, and no venv to get it from (Debian: apt install python3-pip): {_reason(said)}"
        pip[0] = os.path.join(new, "venv", *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))
    # pip's own settings first: `user` and `quiet` in a file would be taken for flags of this command too
    config = _run(bare.clock, [*pip, "config", "list"], new, PIP_USER="0", PIP_QUIET="0")[1]
    found = re.findall(r"^(?:global|install)\.([\w-]+)=(['\"].*['\"])$", config, re.M)
    files = {f"PIP_{name.upper().replace('-', '_')}": " ".join(ast.literal_eval(value).split()) for name, value in found}
    kept = {name: value for name, value in {**files, **os.environ}.items() if name in KEPT}
    options = ["-vv", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "--retries", "0",
               "--timeout", str(PIP_SILENCE_S), "--target", target]  # -vv: else it hides that the index is dead
    status, said = _run(bare.clock, [*pip, "install", *options, *bare.wanted], new, **kept, PIP_CONFIG_FILE=os.devnull,
                        TMPDIR=new, TEMP=new, TMP=new)
    if status:
        return f"pip could not fetch them: {_reason(said)}"
    with contextlib.suppress(OSError):  # a parallel run was first, then its copy is as good
        os.rename(target, folder)
    return None


def _copies(wanted: list[str]) -> list[str]:
    """Where private copies may be: in the user's cache, and in this user's own folder in the temporary one.

    Another Python, platform or range is another copy. A folder that others may write to is none of these.
    """
    home = os.environ.get("HOME", "").rstrip("/")
    home = home if os.path.isdir(home) else ""  # a container's uid has none, or `/`, or one that is not there
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Caches")
    own = f"image2-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    spans = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:8]
    name = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}-{spans}"
    return [os.path.join(parent, name) for parent in (os.path.join(base, "image2"), os.path.join(tempfile.gettempdir(), own))
            if os.path.isabs(parent) and (_is_private(parent, deep=False) or not os.path.lexists(parent))]


def _is_private(folder: str, deep: bool = True) -> bool:
    """Is it a folder of this user, or root, where nobody else may write? `deep`: all that is in it too, and no links."""
    if os.name == "nt":  # the modes say nothing there, and the folders are below the user's profile
        return os.path.isdir(folder)
    try:
        below = (os.path.join(at, name) for at, folders, files in os.walk(folder) for name in folders + files)
        found = [os.lstat(path) for path in [folder, *(below if deep else ())]]
    except OSError:
        return False
    return stat.S_ISDIR(found[0].st_mode) and all(
        one.st_uid in (os.getuid(), 0) and not stat.S_ISLNK(one.st_mode) and not one.st_mode & 0o022 for one in found)


def go_on_with_uv(bare: Bare) -> Optional[str]:
    """Become the interpreter that uv names, or return why not; "" where there is no uv or it was asked before.

    It is asked in a child first: its failure must not take the place of the answer. UV_NO_CONFIG: a uv.toml of the project
    around us could name an index with a `requests` of its own.
    """
    if not bare.uv or "IMAGE2_UV" in os.environ:
        return ""
    status, said = _run(bare.clock, [bare.uv, "run", "--no-project", "--quiet", "--script", bare.script], os.sep,
                        IMAGE2_UV="ask", UV_NO_CONFIG="1", UV_HTTP_TIMEOUT=str(UV_SILENCE_S), UV_HTTP_RETRIES="0")
    python = (said.splitlines() or [""])[-1]
    if status or not (os.path.isabs(python) and os.access(python, os.X_OK)):
        return f"uv could not help: {_reason(said)}"
    os.environ["IMAGE2_UV"] = "done"  # so no process asks twice
    command = [python, *PYTHON[1:], bare.script, *bare.argv]
    if os.name == "nt":  # exec detaches there: the shell would not wait for the answer
        raise SystemExit(subprocess.call(command))
    os.execv(python, command)


def _run(clock: Clock, command: list[str], folder: str, **settings: str) -> tuple[int, str]:
    """(status, what it said) of a child, which gets no key and dies with all its children where this run is stopped.

    RES_OPTIONS: where packets to the name server vanish, glibc would try for 20 s, deaf to pip's own limit.
    """
    passed = {name: value for name, value in os.environ.items()
              if name != KEY_NAME and (not name.startswith("PIP_") or name == "PIP_CONFIG_FILE")}
    try:
        child = subprocess.Popen(command, env={**passed, "RES_OPTIONS": "timeout:2 attempts:1", **settings}, cwd=folder,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 encoding="utf-8", errors="replace", start_new_session=True, umask=0o077)
    except OSError as error:
        return 1, f"error: {error}"
    try:
        said = clock.call(lambda: child.communicate()[0], CHILD_LIMIT_S)
        return child.returncode, said
    except Overdue:
        return 1, f"error: no end after {CHILD_LIMIT_S} s"
    finally:
        if child.returncode is None:
            with contextlib.suppress(OSError):
                child.kill() if os.name == "nt" else os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _reason(said: str) -> str:
    """Why pip, venv or uv failed: in our words where we know it, else their own line without the credentials of an index."""
    for pattern, words in REASONS:
        if re.search(pattern, said, re.I):
            return words
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it does not say why"]
    line = next((line for line in lines if line.lower().startswith("error")), lines[-1])
    return re.sub(r"//[^/@\s]+@", "//", line)[:200]
