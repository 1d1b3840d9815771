"""The shell and the python3 that an agent has in a trial. `trial.py prepare` copies this file to both places.

    FOLDER/run 'COMMAND LINE'     bash in FOLDER/project, with the user's environment, killed after the trial's limit
    FOLDER/bin/python3 ARGS...    the real Python; what image2 is asked and what it answers is written down

FOLDER/commands.log gets a JSON line at the start and at the end of each: what ran is counted from facts, not from
what an agent says it did. A line without an end was killed. FOLDER/transcript.log is what the shell showed.
Standard library only, and nothing of ours: it is run from where it was copied to.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

HERE = Path(os.path.abspath(__file__)).parent
FOLDER = HERE.parent if HERE.name == "bin" else HERE
LONGEST = 200_000  # characters of an answer that the log keeps


def note(**facts) -> None:
    """Append one line, in one write: two commands may run at once."""
    line = json.dumps({**facts, "time": round(time.time(), 2)}, ensure_ascii=False) + "\n"
    with open(FOLDER / "commands.log", "ab", buffering=0) as log:
        log.write(line.encode("utf-8", "surrogateescape"))


def as_shell(words: list, desk: dict) -> int:
    """Run a command line as a host's shell does."""
    line = words[0] if len(words) == 1 else shlex.join(words)
    run = uuid.uuid4().hex
    note(kind="line", run=run, line=line)
    process = subprocess.Popen(["bash", "-c", line], cwd=FOLDER / "project", env=environment(desk), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True)
    pairs = (process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer)
    pumps = [threading.Thread(target=pump, args=pair, daemon=True) for pair in pairs]
    for each in pumps:
        each.start()
    try:
        status = process.wait(desk["limit"])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    for each in pumps:
        each.join(1)  # no longer: what was put into the background keeps the pipe
    status = status if status >= 0 else 128 - status
    if status == 137:
        sys.stderr.write(f"[killed: this shell ends every command after {desk['limit']:g} s]\n" if desk["limit"] else "")
    note(kind="line", run=run, exit=status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def pump(source, target) -> None:
    with open(FOLDER / "transcript.log", "ab", buffering=0) as transcript, contextlib.suppress(OSError, ValueError):
        while piece := source.read1(65536):
            transcript.write(piece)
            target.write(piece)
            target.flush()


def environment(desk: dict) -> dict:
    """This process's, with what the trial's user has set and unset."""
    merged = {**os.environ, **desk["environment"], "PATH": f"{FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return {name: value for name, value in merged.items() if value is not None}


def as_python(words: list, desk: dict) -> int:
    """Run the real Python; write down what is image2's."""
    command = [desk["python"], *words]
    if not any(os.path.basename(word) == "image2.py" for word in words):
        os.execv(command[0], command)
    run = uuid.uuid4().hex
    note(kind="image2", run=run, words=words)
    # IMAGE2_LAUNCHER: `next` must lead back to here, not to the real Python
    process = subprocess.Popen(command, env={**os.environ, "IMAGE2_LAUNCHER": "python3"}, stdout=subprocess.PIPE)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: process.send_signal(number))
    told = b""
    while piece := process.stdout.read1(65536):
        told += piece
        with contextlib.suppress(OSError):
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    status = process.wait()
    status = status if status >= 0 else 128 - status
    note(kind="image2", run=run, exit=status, stdout=told[:LONGEST].decode("utf-8", "replace"))
    os._exit(status)


def main() -> int:
    desk = json.loads((FOLDER / "desk.json").read_text(encoding="utf-8"))
    if HERE.name == "bin":
        return as_python(sys.argv[1:], desk)
    if len(sys.argv) < 2:
        sys.exit("usage: run 'COMMAND LINE'")
    return as_shell(sys.argv[1:], desk)


if __name__ == "__main__":
    main()
