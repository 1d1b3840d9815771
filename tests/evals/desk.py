"""The shell and the python3 that an agent has in a trial. `trial.py prepare` copies this file to both places.

    FOLDER/run 'COMMAND LINE'     bash in FOLDER/project, with the user's environment and the trial's time limit
    FOLDER/bin/python3 ARGS...    the real Python; what image2 is asked and what it answers is written down

FOLDER/commands.log gets a JSON line at the start and at the end of each; one without an end was killed, or goes on.
FOLDER/transcript.log is what the shell showed. Standard library only: it is run from where it was copied to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

HERE = Path(os.path.abspath(__file__)).parent
FOLDER = HERE.parent if HERE.name == "bin" else HERE
LONGEST = 200_000  # characters of an answer that the log keeps


def note(**facts: Any) -> None:
    """One line, in one write: two commands may run at once."""
    line = json.dumps({**facts, "time": round(time.time(), 2)}, ensure_ascii=False) + "\n"
    with open(FOLDER / "commands.log", "ab", buffering=0) as log:
        log.write(line.encode("utf-8", "surrogateescape"))


def as_shell(words: list[str], desk: dict[str, Any]) -> None:
    """Run a command line as a host's shell does, its output in files, so that it can outlive this process."""
    line = words[0] if len(words) == 1 else shlex.join(words)
    run = uuid.uuid4().hex[:8]
    note(kind="line", run=run, line=line)
    shown = FOLDER / "shell"
    shown.mkdir(exist_ok=True)
    out, err = shown / f"{run}.out", shown / f"{run}.err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen(["bash", "-c", line], cwd=FOLDER / "project", env=environment(desk), stdout=stdout,
                                   stderr=stderr, start_new_session=True)
    status, remark = 0, ""
    try:
        status = process.wait(desk["limit"])
    except subprocess.TimeoutExpired:
        if desk["moves"]:
            remark = f"[still running after {desk['limit']:g} s: moved to the background; its output goes on in {out}]\n"
        else:
            os.killpg(process.pid, signal.SIGKILL)
            status, remark = process.wait(), f"[killed: this shell ends every command after {desk['limit']:g} s]\n"
    status = status if status >= 0 else 128 - status
    note(kind="line", run=run, exit=status, **({"moved": True} if desk["moves"] and remark else {}))
    texts = out.read_bytes(), err.read_bytes() + remark.encode()
    with open(FOLDER / "transcript.log", "ab") as transcript, contextlib.suppress(OSError):
        for text, target in zip(texts, (sys.stdout.buffer, sys.stderr.buffer)):
            transcript.write(text)
            target.write(text)
            target.flush()
    os._exit(status)


def environment(desk: dict[str, Any]) -> dict[str, str]:
    """This process's, with what the trial's user has set and unset."""
    merged = {**os.environ, **desk["environment"], "PATH": f"{FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return {name: value for name, value in merged.items() if value is not None}


def as_python(words: list[str], desk: dict[str, Any]) -> None:
    """Run the real Python; write down what is image2's."""
    command = [desk["python"], *words]
    if not any(os.path.basename(word) == "image2.py" for word in words):
        os.execv(command[0], command)
    run = uuid.uuid4().hex[:8]
    note(kind="image2", run=run, words=words)
    # IMAGE2_LAUNCHER: `next` must lead back to here, not to the real Python
    process = subprocess.Popen(command, env={**os.environ, "IMAGE2_LAUNCHER": "python3"}, stdout=subprocess.PIPE)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: process.send_signal(number))
    answer = b""
    while piece := process.stdout.read1(65536):
        answer += piece
        with contextlib.suppress(OSError):
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    status = process.wait()
    status = status if status >= 0 else 128 - status
    note(kind="image2", run=run, exit=status, stdout=answer[:LONGEST].decode("utf-8", "replace"))
    os._exit(status)


def main() -> None:
    desk = json.loads((FOLDER / "desk.json").read_text(encoding="utf-8"))
    if HERE.name == "bin":
        as_python(sys.argv[1:], desk)
    elif len(sys.argv) > 1:
        as_shell(sys.argv[1:], desk)
    else:
        sys.exit("usage: run 'COMMAND LINE'")


if __name__ == "__main__":
    main()
