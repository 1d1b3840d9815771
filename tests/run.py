"""Installs what the tests need into .venv and runs them: `python3 tests/run.py [pytest arguments]`.

Needs only Python 3.10 or newer with venv, and a package index. The next run uses the environment again, until
tests/requirements.txt changes.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = ROOT / "tests" / "requirements.txt"
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def prepare():
    """Make .venv unless one of just these requirements and this Python is there."""
    mark = ENVIRONMENT / "made-for"
    wanted = f"{sys.version} {hashlib.sha256(WANTED.read_bytes()).hexdigest()}"
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return
    print(f"installing the tests' packages into {ENVIRONMENT}", flush=True)
    venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=os.name != "nt")  # as `python3 -m venv` does
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", WANTED], check=True)
    mark.write_text(wanted, encoding="utf-8")


def main():
    """Lint, then test; the exit status is that of the first that fails."""
    prepare()
    compiled = ["compileall", "-q", "scripts"]  # or the four workers' first runs do it all at once, and are slow
    tested = ["pytest", "-n", "4", "--dist", "loadgroup", *sys.argv[1:]]
    for command in (["ruff", "check", "."], compiled, tested):
        status = subprocess.run([PYTHON, "-m", *command], cwd=ROOT).returncode
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
