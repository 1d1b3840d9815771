"""Tells whether bytes are one whole raster image, by walking its container to the true end.

A leaf: the standard library only, nothing of ours. It reads the file it is handed; it opens no path, writes
nothing and decodes no pixel. It vouches for the container, not for what the picture shows.

Magic bytes are not enough: a download that was cut still begins like a picture, and later crashes the session
of the agent that opens it. Whatever the bytes, the answer is a `Raster` or a `NotRaster`, in bounded time and
flat memory.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from . import containers
from .containers import UNKNOWN, NotRaster

LONGEST_SIDE = 65_535  # pixels: what JPEG and GIF can say at most
MOST_PIXELS = 1 << 28  # the largest WebP, 16384 x 16384; more is a decompression bomb, not a picture

EXTENSIONS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "gif": ".gif", "avif": ".avif"}


class Raster(NamedTuple):
    """A whole image: `width` and `height` in pixels as stored (before any rotation that metadata asks for).

    `end` is the offset just behind the container's last byte: what follows was appended and is no part of it.
    """

    format: str
    width: int
    height: int
    end: int


def inspect(file) -> Raster:
    """Walk the image in `file` (binary, seekable; its position does not matter and is lost) to its true end.

    Raises `NotRaster` for anything but a whole png, jpeg, webp, gif or avif, and `OSError` where `file` does.
    """
    source = containers.Source(file)
    head = source.look(0, min(source.size, 1024))
    for name, label, magic, walk in _FORMATS:
        if magic.match(head):
            source.label = label
            width, height, end = walk(source)
            if not end:
                raise NotRaster(f"{label} without picture data")
            if not (0 < width * height <= MOST_PIXELS and max(width, height) <= LONGEST_SIDE):
                raise NotRaster(f"{label} with an absurd size of {width}x{height} pixels")
            return Raster(name, width, height, end)
    raise NotRaster(_what_else(head))


_FORMATS = (
    ("png", "a PNG", re.compile(rb"\x89PNG"), containers.png),
    ("jpeg", "a JPEG", re.compile(rb"\xff\xd8\xff"), containers.jpeg),
    ("gif", "a GIF", re.compile(rb"GIF8[79]a"), containers.gif),
    ("webp", "a WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), containers.webp),
    ("avif", "an AVIF", re.compile(rb".{4}ftyp", re.DOTALL), containers.avif),
)


def _what_else(head: bytes) -> str:
    """What the bytes are instead: a service that fails sends a page or JSON, a user may name an SVG."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty"
    if text.startswith(b"<"):
        if b"<html" in text or b"<!doctype html" in text:
            return "HTML, not an image"
        if b"<svg" in text:
            return "an SVG: vector, not a raster image"
        return "XML, not an image" if text.startswith(b"<?xml") else "HTML, not an image"
    if text.startswith((b"{", b"[")):
        return "JSON, not an image"
    if text.startswith(b"%pdf-"):
        return "a PDF, not an image"
    return UNKNOWN
