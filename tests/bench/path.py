"""The way of one order through the code: `python path.py`. Counts the files that `generate` goes through from its words to
its JSON line, and the changes from one file to another, with sys.setprofile. Wanted: 20 files, 140 changes at most.

Calls in every thread count, the first run of a module does not. Version 1.0: 29 files, 221 changes.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from common import KEY, SCRIPT, Service

MOST_FILES, MOST_CHANGES = 20, 140
SCRIPTS = os.path.dirname(os.path.realpath(SCRIPT))
visited: list[str] = []


def note(frame: Any, event: str, _: Any) -> None:
    """The profiler."""
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(SCRIPTS) and code.co_name != "<module>":
        visited.append(os.path.relpath(code.co_filename, SCRIPTS))


def main() -> int:
    """Print the files in the order of their first call, and both numbers; 1 where one is over its bound."""
    with Service(task_s=0.0, request_s=0.0) as service, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ.update(IMAGE2_API_KEY=KEY, IMAGE2_BASE_URL=service.base_url, HOME=folder)
        sys.argv = [SCRIPT, "generate", "a fox", "--poll-interval", "0.05"]
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            runpy.run_path(SCRIPT, run_name="__main__")
        except SystemExit as end:
            status = end.code
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
            os.chdir(Path(SCRIPT).parent)
    steps = [(one, other) for one, other in zip(visited, visited[1:]) if one != other]
    files, changes = list(dict.fromkeys(visited)), len(steps)
    print(*files, sep="\n")
    print(f"exit {status}: {len(files)} files, {changes} changes")
    return int(bool(status) or len(files) > MOST_FILES or changes > MOST_CHANGES)


if __name__ == "__main__":
    sys.exit(main())
