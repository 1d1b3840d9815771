"""What a command reads besides its own line: a prompt or batch file, stdin, words that the locale could not decode."""

from __future__ import annotations

import os
import stat
import sys
from typing import Optional, Union

from ..clock import Clock
from ..text import shown

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the marks that PowerShell's `>` and Notepad write


class InputProblem(ValueError):
    """A text cannot be read; `str(e)` names it and what is wrong with it."""


def is_read_once(path: Optional[str]) -> bool:
    """Is it stdin or a pipe, as the shell makes of `<(...)`? Whoever comes later finds it empty."""
    if not path or path == "-":
        return path == "-"
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def something_is_piped() -> bool:
    """May there be a text on stdin? Where nobody is asked, it is a pipe or a file."""
    try:
        found = os.fstat(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # there is no stdin
        return False
    return stat.S_ISFIFO(found.st_mode) or stat.S_ISREG(found.st_mode) and found.st_size > 0


def argument_text(argument: str) -> str:
    """A word of the command line: what the locale could not decode (LC_ALL=POSIX) is read as UTF-8."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument  # no text in any reading; the checks of the order refuse it


def read_text(path: str, clock: Clock, most: int) -> str:
    """The text of a file, or of stdin for `-`. Raises `InputProblem`, and `Interrupted` where a signal comes."""
    if path == "-" and (sys.stdin is None or sys.stdin.isatty()):
        raise InputProblem("-: stdin is a terminal; pipe the text in")
    try:
        # a file of its own, in a thread: a pipe that nobody closes would be deaf to signals, and keep sys.stdin locked
        source: Union[str, int] = sys.stdin.fileno() if path == "-" else os.path.expanduser(path)
        raw = clock.call(lambda: _read_bytes(source, most + 1), float("inf"))
        if len(raw) > most:
            raise ValueError(f"more than {most} bytes")
        if b"\0" in raw and raw[:2] not in UTF_16:
            raise ValueError("it holds NUL bytes: no text, or UTF-16 without its mark; save it as UTF-8")
        return raw.decode("utf-16" if raw[:2] in UTF_16 else "utf-8-sig")
    except UnicodeDecodeError:
        problem = "not UTF-8 text; save it as UTF-8"
    except (OSError, ValueError) as error:  # ValueError: also a name that holds a NUL, a stdin that is closed
        problem = getattr(error, "strerror", None) or str(error)
    raise InputProblem(f"{shown(path, 200)}: {problem}")


def _read_bytes(source: Union[str, int], most: int) -> bytes:
    with open(source, "rb", closefd=isinstance(source, str)) as file:
        return file.read(most)
