"""Turns one local reference image into the `data:` URI that goes into an order.

Imports only `image_check` and what `fields` says of URLs. It reads the one file it is told to and writes nothing;
it knows no key and no network.

The picture leaves the user's machine, so what is sent is what was checked: the file is opened once, and the
bytes read then are inspected and encoded. What lies behind the picture's own end (a zip, a note) is not sent.
"""

from __future__ import annotations

import base64
import io
import os
import stat

from ..pictures import image_check as raster
from .fields import url_mistake

LIMIT = 20 * 1024 * 1024  # bytes of one file: our own bound, the service documents none
ALLOWED = "allowed: a whole png, jpeg, webp, gif or avif file of at most 20 MiB"


class ReferenceProblem(ValueError):
    """The file cannot be sent; `str(e)` names the path, what is wrong with it and what is allowed."""


def data_uri(path) -> str:
    """The picture at `path` (`~` is expanded, relative is fine) as `data:image/...;base64,...`.

    The type is told from the bytes, not from the name. Raises `ReferenceProblem` for whatever cannot be sent.
    """
    try:
        data = _read(os.path.expanduser(path))
        picture = raster.inspect(io.BytesIO(data))
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
    else:
        encoded = base64.b64encode(memoryview(data)[: picture.end]).decode("ascii")
        return f"data:image/{picture.format};base64,{encoded}"
    raise ReferenceProblem(f"{path}: {problem} ({ALLOWED})")


def image_of(text: str) -> str:
    """A `--image` value as the order carries it: a URL unchanged, a local file as its data: URI.

    Raises `ReferenceProblem` for whatever can be neither.
    """
    if "://" not in text and not text.startswith("data:"):
        return data_uri(text)
    wrong = url_mistake(text)
    if wrong:
        raise ReferenceProblem(wrong)
    return text


def _read(path: str) -> bytes:
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("a pipe or a device, not a file")
        # /proc/kmsg calls itself a regular file and has None to give where others would block.
        data = file.read(LIMIT + 1) or b""
    if len(data) > LIMIT:
        raise ValueError("too large")
    return data


def _open_without_waiting(path, flags: int) -> int:
    """Opening a pipe that nobody writes to would hang for ever; opening a terminal could make it ours."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
