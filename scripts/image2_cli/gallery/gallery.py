"""A folder's records -> one self-contained `index.html` beside its pictures.

Reads `.image2/` and looks which files are there; writes that one page and nothing else. Never the network, the key
or a lock. Only files that lie in the folder and end like a picture get a link, whatever path a record names.
"""

from __future__ import annotations

import contextlib
import os
import uuid

from ..errors import Image2Error
from ..order import record as recorded
from ..order import store as records
from ..order.fields import shown
from ..order.output import SUFFIXES
from ..service.task import MAX_IMAGES
from .gallery_page import FAILED, KINDS, LEFT, MISSING, NOT_SENT, PICTURE, REPLACED, UNFINISHED, UNKNOWN, Entry, page

PAGE = "index.html"
MARKER, MARKER_WITHIN = b'<meta name="generator" content="image2 gallery">', 2048
OF_STATE = {recorded.SUBMITTED: UNFINISHED, recorded.FINISHED: FAILED, recorded.NOT_SENT: NOT_SENT}


def write_page(folder: str) -> tuple:
    """Write the page of `folder`: (its path, counts).

    `counts` has `images`, the pictures shown, `failed`, and how many entries there are of every other kind found.
    Raises `Image2Error`: usage where there are no records, or where an `index.html` stands that is not ours;
    output_not_writable where the disk refuses.
    """
    found = records.Store(folder).all()
    if not found:
        what = "holds no records of orders" if os.path.isdir(folder) else "does not exist"
        raise Image2Error("usage", "%s %s. Name the folder that `generate --out` wrote to."
                          % (shown(folder, 200), what))
    path = os.path.join(folder, PAGE)
    _refuse_foreign(path)
    entries = entries_of(folder, found)
    try:
        _replace(path, page(folder, entries))
    except OSError as error:
        raise Image2Error("output_not_writable", "The gallery cannot be written to %s (%s)."
                          % (shown(path, 200), error.strerror or error)) from None
    kinds = [entry.kind for entry in entries]
    others = {kind: kinds.count(kind) for kind in KINDS if kind not in (PICTURE, FAILED) and kind in kinds}
    return path, {"images": kinds.count(PICTURE), "failed": kinds.count(FAILED), **others}


def entries_of(folder: str, found: list) -> list:
    """The entries of the page, newest order first. A file that two pictures claim belongs to the later one."""
    entries, claimed = [], set()
    for order in sorted(reversed(found), key=lambda order: order.get("created_s") or 0, reverse=True):
        for entry in _entries(folder, order):
            if entry.file in claimed:
                entry = Entry(REPLACED, order, entry.image)
            if entry.file:
                claimed.add(entry.file)
            entries.append(entry)
    return entries


def _entries(folder, order):
    state, images = order["state"], order.images[:MAX_IMAGES]
    rest = {}  # kind -> the first image of it: what is not there is told once an order
    for image in images:
        path = image.get("path")
        if path and not image.get("error"):
            file = _file(folder, path)
            if file or state != recorded.SUBMITTED:
                yield Entry(PICTURE if file else MISSING, order, image, file)
                continue
        elif state == recorded.FINISHED and not image.get("error"):
            rest.setdefault(LEFT, image)
            continue
        rest.setdefault(OF_STATE.get(state, UNKNOWN), image)
    asked = order["request"].get("n")
    if not images or (type(asked) is int and asked > len(images)):
        rest.setdefault(OF_STATE.get(state, UNKNOWN), {})
    for kind, image in rest.items():
        yield Entry(kind, order, image)


def _file(folder, path):
    """The picture's place relative to the folder, or None. A folder that was moved has its pictures still beside it."""
    root = os.path.realpath(folder)
    for candidate in (path, os.path.basename(path)):
        try:
            real = os.path.realpath(os.path.join(root, candidate))
            if (real.startswith(os.path.join(root, "")) and os.path.splitext(real)[1].lower() in SUFFIXES
                    and os.path.isfile(real)):
                return os.path.relpath(real, root)
        except (OSError, ValueError):  # a name that no file can have
            continue
    return None


def _refuse_foreign(path):
    """Somebody's own index.html is never replaced; ours says so near its top."""
    if not os.path.lexists(path):
        return
    ours = False
    if os.path.isfile(path) and not os.path.islink(path):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            ours = MARKER in file.read(MARKER_WITHIN)
    if not ours:
        raise Image2Error("usage", "%s was not made by this tool and is left alone. Rename it, then run the same again."
                          % shown(path, 200))


def _replace(path, text):
    part = "%s.%s.part" % (path, uuid.uuid4().hex[:8])
    try:
        with open(part, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
