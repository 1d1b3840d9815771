"""Turns reference images into what an order carries: a URL as it is, a local file as a `data:` URI.

The picture leaves the user's machine, so what is sent is what was checked: a file is opened once, and the bytes read then
are inspected and encoded. What lies behind the picture's own end (a zip, a note) is not sent.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Iterable

from ..text import shell, shown
from .fields import url_mistake

LIMIT = 20 << 20  # bytes of one file: our own bound, the service documents none
MAX_OF_ORDER = 48 << 20  # characters of all data: URIs of one order
MAX_OF_ALL = 256 << 20  # and of all orders of a run, each file counted once
ALLOWED = "allowed: a whole png, jpeg, webp, gif or avif file of at most 20 MiB"
CONVERTIBLE = r"(?i)\b(heic|heif|tiff?|bmp|psd|ico|jxl|jpeg xl|jp2|raw|dng|svg|pdf)\b"
CONVERT = ("magick {0} {1}", "sips -s format png {0} --out {1}")  # the second on a Mac
SHRINK = ("magick {0} -resize 2048x2048 {1}", "sips -Z 2048 {0} --out {1}")


class ReferenceProblem(ValueError):
    """Names the image that cannot be sent, what is wrong with it, what is allowed and how to get there."""


class References:
    """The reference images of a run's orders: each file is read once, and all together are bounded."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def images(self, texts: Iterable[str]) -> tuple[list[str], list[str]]:
        """The `--image` values of one order as it carries them, and what is wrong with them."""
        images, mistakes = [], []
        for text in texts:
            try:
                self._known[text] = self._known.get(text) or image_of(text)
                images.append(self._known[text])
            except ReferenceProblem as problem:
                mistakes.append(str(problem))
        for those, most, what in ((images, MAX_OF_ORDER, "one order"), (self._known.values(), MAX_OF_ALL, "all orders")):
            size = sum(map(len, those))
            if size > most:
                mistakes.append(f"the reference files of {what} are {size * 3 // 4 >> 20} MB together, "
                                f"{most * 3 // 4 >> 20} are allowed")
        return images, mistakes


def image_of(text: str) -> str:
    """One `--image` value as the order carries it. Raises `ReferenceProblem` for what is neither a URL nor a picture."""
    if "://" not in text and not text.startswith("data:"):
        return _data_uri(text)
    wrong = url_mistake(text)
    if wrong:
        raise ReferenceProblem(wrong)
    return text


def _data_uri(path: str) -> str:
    """The picture at `path` (`~` is expanded); its type is told from the bytes, not from the name."""
    import base64  # here, for most orders have no local picture
    import io

    from ..pictures import image_check

    try:
        data = _read(os.path.expanduser(path))
        picture = image_check.inspect(io.BytesIO(data))
        encoded = base64.b64encode(memoryview(data)[: picture.end]).decode("ascii")
        return f"data:image/{picture.format};base64,{encoded}"
    except FileNotFoundError:
        problem = "no such file"
    except IsADirectoryError:
        problem = "a folder, not a file"
    except PermissionError:
        problem = "no permission to read it"
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    except ValueError as error:  # NotRaster, from _read, or a path that holds a NUL
        problem = str(error)
    raise ReferenceProblem(f"{shown(path, 120)}: {problem} ({ALLOWED}){_advice(path, problem)}")


def _advice(path: str, problem: str) -> str:
    """The commands that make a picture of it that can be sent, as the end of a sentence; nothing where there is none."""
    is_large = problem.startswith("too large")
    is_kind = ", not a " in problem and re.search(CONVERTIBLE, problem + os.path.splitext(path)[1])
    if not is_large and not is_kind:
        return ""
    stem = os.path.splitext(path)[0]
    names = [path, f"{stem}-small.png" if is_large else f"{stem}.png"] if len(path) <= 120 else ["in", "out.png"]
    quoted = [shell([f"./{name}" if name.startswith("-") else name]) for name in names]
    first, second = (command.format(*quoted) for command in (SHRINK if is_large else CONVERT))
    return f"; {'make it smaller' if is_large else 'convert it'} first: `{first}` or `{second}`"


def _read(path: str) -> bytes:
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("a pipe or a device, not a file")
        # /proc/kmsg calls itself a regular file and has None to give where others would block.
        data = file.read(LIMIT + 1) or b""
    if len(data) > LIMIT:
        raise ValueError("too large")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a pipe that nobody writes to would hang for ever; opening a terminal could make it ours."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
