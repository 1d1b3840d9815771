"""Installs what the tests need and runs them.

    python3 tests/run.py [pytest arguments]   # everything: lint, types, all tests
    python3 tests/run.py quick [...]          # lint and the tests that need no process, browser or installation
    python3 tests/run.py lowest [...]         # submit, look, download, kills with the lowest versions of the packages

Needs only Python 3.9 or newer with venv, and a package index. The environments (.venv, .venv-lowest) are used again
until their requirements change. Types are checked where mypy has a version for this Python: 3.10 and newer.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = ROOT / "tests" / "requirements.txt"
LOWEST = ROOT / "tests" / "lowest" / "requirements.txt"
WORKERS = str(2 * (os.cpu_count() or 1))  # most tests wait for a process, so a core carries two


def environment(name: str, wanted: list[Path]) -> Path:
    """The interpreter of an environment with what the files want, made anew unless it is there for just these."""
    folder = ROOT / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    mark = folder / "made-for"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()
    made_for = f"{sys.version} {digest}"
    if mark.is_file() and mark.read_text(encoding="utf-8") == made_for:
        return python
    print(f"installing the tests' packages into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True, symlinks=os.name != "nt")  # as `python3 -m venv` does
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    files = [word for path in wanted for word in ("-r", path)]
    subprocess.run([*pip, *files], check=True)
    mark.write_text(made_for, encoding="utf-8")
    return python


def main(words: list[str]) -> int:
    """Run what is asked for; the exit status is that of the first that fails."""
    mode = words.pop(0) if words and words[0] in ("quick", "lowest") else "all"
    compiled = ["compileall", "-q", "scripts"]  # or the workers' first runs do it all at once, and are slow
    tested = ["pytest", "-n", WORKERS, "--dist", "loadgroup"]
    steps = [compiled, [*tested, *words]]
    if mode == "lowest":
        python = environment(".venv-lowest", [WANTED, LOWEST])
        steps = [compiled, [*tested, "-m", "lowest", *words]]
    else:
        python = environment(".venv", [WANTED])
        steps.insert(0, ["ruff", "check", "."])
    if mode == "quick":
        steps[-1][1:1] = ["-m", "not slow"]
    elif mode == "all" and sys.version_info >= (3, 10):
        steps.insert(1, ["mypy"])
    elif mode == "all":
        print("types are not checked: mypy has no version for this Python that knows them all; 3.10 and newer check them")
    for step in steps:
        status = subprocess.run([python, "-m", *step], cwd=ROOT).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
