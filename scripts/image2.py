#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = [
#   "requests>=2.32,<3",
#   "urllib3>=2.2,<3",
#   "python-dotenv>=1.0,<2",
# ]
# ///
# The ranges stand here alone. Distributions mend packages without a new number; what the advisories within them mean here:
#   requests CVE-2026-25645, CVE-2024-47081           not reached: no extract_zipped_paths; every request has its own auth
#   python-dotenv CVE-2026-28684                      not reached: set_key and unset_key only
#   urllib3 CVE-2025-50181, -2026-21441, -2026-44431  not reached: redirects are off at every request
#   urllib3 CVE-2025-66418, -2025-66471               not reached: bodies are read undecoded; we undo one bounded layer
#   urllib3 CVE-2026-44432                            not reached: no drain_conn, no Brotli
"""The entry of the image2 skill: is Python new enough, was the skill copied whole? Parses on any Python 3: no f-strings."""

import os
import sys

# The real folder, and by hand: -I and -P leave it out.
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
REINSTALL = "npx skills@1.7.1 add ichizi/image2-skills -y"


def answer(message: str, remedy: "str | None" = None) -> int:
    """Print the answer `missing_dependency`, without the package; returns the exit status."""
    import json

    error = {"code": "missing_dependency", "message": message, "retryable": False}
    print(json.dumps({"ok": False, "status": "missing_dependency", "task_id": None, "charged": "no", "images": [],
                      "error": error, "next": remedy}))
    return 2


def answer_old() -> int:
    """Name the newer Python, or uv, that this machine has; from absolute entries of PATH only."""
    message = "This is Python " + sys.version.split()[0] + ", 3.9 or newer is needed. "
    for words in [["python3.%d" % minor] for minor in range(14, 8, -1)] + [["uv", "run"]]:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            path = os.path.join(folder, words[0])
            if os.path.isabs(folder) and works(path):
                return answer(message + "Run this command again with " + " ".join([path] + words[1:]) + ".")
    return answer(message + "Run it with a newer one (Windows: py -3), or install uv (https://docs.astral.sh/uv/).")


def works(path: str) -> bool:
    """Whether this program runs at all: pyenv's shims are on PATH without a Python behind them. It gets no key."""
    from subprocess import DEVNULL, STDOUT, call

    try:
        return not call([path, "--version"], stdin=DEVNULL, stdout=DEVNULL, stderr=STDOUT, cwd=os.sep,
                        env=dict(os.environ, IMAGE2_API_KEY=""))
    except OSError:
        return False


def run() -> int:
    """The exit status; `main` exits by itself."""
    if os.environ.get("IMAGE2_UV") == "ask":  # machine/fetching asks under `uv run` which interpreter that is
        print(sys.executable)
        return 0
    if sys.version_info < (3, 9):
        return answer_old()
    try:
        from image2_cli.main import main

        main()
    except (ImportError, SyntaxError) as error:  # also of a file that is loaded only when it is needed
        lost = getattr(error, "name", None) or getattr(error, "filename", None) or "a part"
        return answer(lost + " is missing or broken beside " + os.path.realpath(__file__) + ": not copied whole. Install it"
                      " again: " + REINSTALL + ", or: git clone https://github.com/ichizi/image2-skills", REINSTALL)


if __name__ == "__main__":
    sys.exit(run())
