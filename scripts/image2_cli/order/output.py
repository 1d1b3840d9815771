"""Where an order's pictures go: the folder, their names, and whether they can be written at all.

Touches the disk, never the network. A name comes from the user's words or the task, never from the service.
"""

from __future__ import annotations

import os
import re
from collections import namedtuple

from ..errors import Image2Error
from .fields import shown

DEFAULT_FOLDER = "image2-output"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")
ROOM_PER_IMAGE = 16 * 1024 * 1024
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(-|$)", re.I)


class Place(namedtuple("Place", "folder stem suffix overwrite", defaults=(None, None, False))):
    """An output place: an absolute folder, and a file's stem and suffix, None where only a folder was named."""

    __slots__ = ()


def resolve(out: str | None, overwrite: bool = False) -> Place:
    """`--out` -> `Place`: a path that ends like an image is a file, anything else a folder."""
    try:
        path = os.path.abspath(os.path.expanduser(out or DEFAULT_FOLDER))
    except FileNotFoundError:
        raise Image2Error("output_not_writable", "The working folder was deleted; nothing was sent. Change to one that "
                          "exists.") from None
    stem, suffix = os.path.splitext(os.path.basename(path))
    if suffix.lower() in SUFFIXES and not (out or "").endswith(("/", os.sep)):
        return Place(os.path.dirname(path), stem, suffix, overwrite)
    return Place(path, None, None, overwrite)


def mistake(place: Place, images: int) -> str | None:
    """Why `images` pictures cannot be written there, or None. Looks only; `make` is what tries."""
    named = os.path.join(place.folder, "%s%s" % (place.stem, place.suffix)) if place.stem else place.folder
    try:
        named.encode("utf-8")
    except UnicodeEncodeError:  # no answer could name it, and a `next` that names another folder pays again
        return "--out %s is no UTF-8: choose another name" % shown(named, 200)
    if place.stem and os.path.isdir(named):
        return "--out %s is a folder with a picture's ending: choose another name" % shown(named, 200)
    standing = place.folder
    while not os.path.lexists(standing) and os.path.dirname(standing) != standing:
        standing = os.path.dirname(standing)
    if not os.path.isdir(standing):
        return "--out: %s is a file in the way of the folder" % shown(standing, 200)
    if not os.access(standing, os.W_OK | os.X_OK):
        return "--out: %s is not writable" % shown(standing, 200)
    try:
        for folder in (place.folder, standing):  # in a folder that is not there yet no name is too long
            _try_name(path_of(Place(folder), place.stem or "x", 99, max(SUFFIXES, key=len)))
        free = _free_bytes(standing)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return "--out %s is not writable (%s)" % (shown(named, 200), getattr(error, "strerror", None) or error)
    if free < images * ROOM_PER_IMAGE:
        return ("--out %s has %d MB free, %d are wanted for %d images"
                % (shown(place.folder, 200), free >> 20, images * ROOM_PER_IMAGE >> 20, images))
    return None


def make(folder: str):
    """Create an output folder and try a file in it. Raises `Image2Error` output_not_writable."""
    import tempfile

    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Image2Error("output_not_writable", "--out %s is not writable (%s). Nothing was sent; choose another folder."
                          % (shown(folder, 200), error.strerror or error)) from None


def _try_name(path: str):
    # a name too long for the disk must not be found out after paying
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass


def slug(text: str | None) -> str:
    """A file's stem out of a prompt: its first words, in any script, as every file system takes them."""
    words = re.findall(r"[^\W_]+", (text or "")[:400].lower())
    stem = ""
    for word in words:
        longer = "%s-%s" % (stem, word) if stem else word[:32]
        if len(longer) > 40 or len(longer.encode("utf-8", "replace")) > 100:
            break
        stem = longer
    if not stem or WINDOWS_DEVICES.match(stem):
        return "image-" + stem if stem else "image"
    return stem


def path_of(place: Place, stem: str, number: int, extension: str) -> str:
    """The `number`-th (from 1) name: `stem.png`, `stem-2.png`, …"""
    return os.path.join(place.folder, stem + ("" if number == 1 else "-%d" % number) + extension)


def first_number(place: Place, stem: str, count: int) -> int:
    """The number from which `count` names in a row are free, whatever their extension."""
    if place.overwrite:
        return 1
    number = 1
    while any(os.path.lexists(path_of(place, stem, number + step, ending))
              for step in range(count) for ending in SUFFIXES):
        number += 1
    return number


def stood_at(path: str, wall_s: float) -> bool:
    """Has this file, if there is one, not been written since that second of the wall clock?"""
    try:
        return os.lstat(path).st_mtime <= wall_s
    except OSError:
        return True


def own_file(folder: str, stem: str, ending: str, beginning: bytes) -> str:
    """The first numbered name that is free or whose file begins like those of this tool: others are never replaced.

    Raises OSError where a file of that name cannot be read.
    """
    place, number = Place(folder), 1
    while True:
        path = path_of(place, stem, number, ending)
        try:
            with open(path, "rb") as file:
                if file.read(len(beginning)) == beginning:
                    return path
        except FileNotFoundError:
            return path
        number += 1


def extension_for(place: Place, format_name: str) -> str:
    """The extension the bytes ask for; the user's own spelling where it means the same."""
    from ..pictures.image_check import EXTENSIONS

    wanted = EXTENSIONS[format_name]
    given = (place.suffix or "").lower()
    return place.suffix if given == wanted or {given, wanted} == {".jpg", ".jpeg"} else wanted


def _free_bytes(folder: str) -> int:
    if hasattr(os, "statvfs"):
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize
    import shutil  # elsewhere it would cost every start 2 ms

    return shutil.disk_usage(folder).free
