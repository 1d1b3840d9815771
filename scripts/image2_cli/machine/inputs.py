"""What a command reads besides its own line: a prompt or batch file, stdin, reference pictures.

Reads the files it is told to and writes nothing. Nobody is asked: a terminal on stdin is a mistake.
"""

from __future__ import annotations

import os
import sys

from ..order import fields as request

MAX_PROMPT_BYTES = 1_000_000
MAX_REFERENCES = 48 * 1024 * 1024  # characters of all data: URIs of one order; our own bound


def references(given, mistakes) -> list:
    """`--image` values -> URLs and data: URIs; what is wrong goes into `mistakes`."""
    from ..order.reference import ReferenceProblem, image_of

    images = []
    for text in given or ():
        try:
            images.append(image_of(text))
        except ReferenceProblem as problem:
            mistakes.append("--image %s" % problem)
    if sum(map(len, images)) > MAX_REFERENCES:
        mistakes.append("the reference files are too large together: %d MB are allowed" % (MAX_REFERENCES * 3 // 4 >> 20))
    return images


def is_read_once(path) -> bool:
    """Is it stdin or a pipe, as the shell makes of `<(...)`? Whoever comes later finds it empty."""
    return path == "-" or bool(path) and os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def read_text(path: str, clock, most: int = MAX_PROMPT_BYTES) -> tuple:
    """(text of a file or of stdin for `-`, what is wrong or None)."""
    try:
        if path == "-" and (sys.stdin is None or sys.stdin.isatty()):
            return "", "-: stdin is a terminal; pipe the text in"
        # a pipe that nobody closes would be deaf to signals
        raw = clock.call(lambda: _read_bytes(path, most + 1), float("inf"))
        if len(raw) > most:
            return "", "%s: more than %d bytes" % (request.shown(path), most)
        return raw.decode("utf-8-sig"), None
    except OSError as error:
        return "", "%s: %s" % (request.shown(path), error.strerror or error)
    except UnicodeDecodeError:
        return "", "%s: not UTF-8 text" % request.shown(path)


def _read_bytes(path: str, most: int) -> bytes:
    if path != "-":
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(most)
    raw = b""
    # not through sys.stdin: Python aborts at its end where a thread still holds that object's lock
    while len(raw) < most and (piece := os.read(sys.stdin.fileno(), most - len(raw))):
        raw += piece
    return raw
