"""Is this one whole picture? By its magic, a size that makes sense and the end of its container.

A leaf: the standard library only. It reads the file it is handed, in pieces; it opens no path, writes nothing and
decodes no pixel: what lies between head and end is the decoder's business. Magic alone is not enough: a download that
was cut still begins like a picture, and later crashes the session of the agent that opens it.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO, Callable, NamedTuple, Optional

PIECE = 256 * 1024  # bytes held in memory at once
HEAD = 1024  # bytes that are enough to say what a file is
MOST_PARTS = 2000  # segments or boxes before the picture: more are made to waste time
LONGEST_SIDE = 65_535  # pixels: what JPEG and GIF can say at most
MOST_PIXELS = 1 << 28  # the largest WebP, 16384 x 16384; more is a decompression bomb, not a picture
EARLY, BROKEN = "that ends early", "with a damaged header"
SizeAndEnd = tuple[int, int, int]


class NotRaster(ValueError):
    """The bytes are not one whole raster image; `str(e)` says why, in words ("a PNG that ends early")."""


class Raster(NamedTuple):
    """A whole image, `width` and `height` in pixels as stored. What lies behind `end` was appended to it."""

    format: str
    width: int
    height: int
    end: int


class Kind(NamedTuple):
    """What bytes are. `extension` is empty for text; `measure` is there for the pictures that are known here."""

    name: str
    format: str
    extension: str
    magic: bytes
    measure: Optional[Callable[[BinaryIO], SizeAndEnd]] = None


def inspect(file: BinaryIO) -> Raster:
    """The picture that the (seekable) file holds from its first byte on; raises `NotRaster` where it is no whole one."""
    file.seek(0)
    kind = what_is(file.read(HEAD))
    if kind.measure is None:
        raise NotRaster(f"{kind.name}, not a png, jpeg, webp, gif or avif image")
    try:
        width, height, end = kind.measure(file)
    except ValueError as error:
        raise NotRaster(f"{kind.name} {error}") from None
    if not (0 < width * height <= MOST_PIXELS and max(width, height) <= LONGEST_SIDE):
        raise NotRaster(f"{kind.name} with an absurd size of {width}x{height} pixels"
                        f" (allowed: 1 to {LONGEST_SIDE} a side, {MOST_PIXELS} in all)")
    return Raster(kind.format, width, height, end)


def what_is(head: bytes) -> Kind:
    """What a file is that begins with these bytes, of which HEAD are looked at."""
    return next(kind for kind in _KINDS if re.match(kind.magic, head[:HEAD], re.DOTALL))


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    data = file.read(count)
    if len(data) < count:
        raise ValueError(EARLY)
    return data


def _behind(file: BinaryIO, at: int, mark: bytes) -> int:
    """The offset just behind the first `mark` at or behind `at`."""
    while True:
        window = _read(file, at, len(mark)) + file.read(PIECE - len(mark))
        found = window.find(mark)
        if found >= 0:
            return at + found + len(mark)
        at += len(window) - len(mark) + 1


def _png(file: BinaryIO) -> SizeAndEnd:
    head = _read(file, 0, 33)
    if not head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"):
        raise ValueError(f"{BROKEN} (copied as text?)")
    width, height = struct.unpack_from(">II", head, 16)
    return width, height, _behind(file, 33, b"\0\0\0\0IEND\xaeB`\x82")


def _jpeg(file: BinaryIO) -> SizeAndEnd:
    at, width, height = 2, 0, 0
    for _ in range(MOST_PARTS):
        marker, length = struct.unpack(">HH", _read(file, at, 4))
        if marker <= 0xFF00 or marker == 0xFFFF:
            at += 1  # stray bytes and filling between two segments are passed over, as decoders do
            continue
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack(">HH", _read(file, at + 5, 4))
        at += 2 + length
        if marker == 0xFFDA:  # from here on FF D9 can only be the end; before it, a thumbnail has one of its own
            return width, height, _behind(file, at, b"\xff\xd9")
    raise ValueError(BROKEN)


def _gif(file: BinaryIO) -> SizeAndEnd:
    width, height = struct.unpack("<HH", _read(file, 6, 4))
    size = file.seek(0, 2)
    tail = _read(file, max(0, size - 64), min(64, size))
    whole = tail.rstrip(b"\0\r\n")
    if not whole.endswith(b"\0;"):  # the trailer behind the last block; inside the data this pair means nothing
        raise ValueError(EARLY)
    return width, height, size - len(tail) + len(whole)


def _webp(file: BinaryIO) -> SizeAndEnd:
    length, kind, body = struct.unpack("<4xI4x4s4x10s", _read(file, 0, 30))
    size, end = file.seek(0, 2), 8 + length
    if end > size:
        raise ValueError(EARLY)
    end = min(size, end + end % 2)  # some writers leave the last pad byte out of the size
    bits = int.from_bytes(body, "little")
    if kind == b"VP8X":
        return 1 + (bits >> 32 & 0xFFFFFF), 1 + (bits >> 56), end
    if kind == b"VP8L":
        return 1 + (bits >> 8 & 0x3FFF), 1 + (bits >> 22 & 0x3FFF), end
    return (bits >> 48 & 0x3FFF, bits >> 64 & 0x3FFF, end) if kind == b"VP8 " else (0, 0, end)


def _avif(file: BinaryIO) -> SizeAndEnd:
    size, at, sides = file.seek(0, 2), 0, []
    found: set[bytes] = set()
    for _ in range(MOST_PARTS):
        if at + 8 > size:
            break
        length, kind = struct.unpack(">I4s", _read(file, at, 8))
        if kind not in (b"ftyp", b"meta", b"moov", b"mdat", b"free", b"skip", b"uuid") or kind in found - {b"mdat", b"free"}:
            break  # no box of this file any more: it was appended
        if length == 1:
            length = int.from_bytes(_read(file, at + 8, 8), "big")
        end = at + length if length else size  # 0: to the end of the file
        if end > size or end < at + 8:
            raise ValueError(EARLY if end > size else "with a damaged box")
        inside = _read(file, at, min(end - at, PIECE)) if kind == b"meta" else b""
        # tiles and thumbnails have a size too: the largest is the picture's
        sides += [struct.unpack(">II", pair) for pair in re.findall(rb"ispe\0{4}(.{8})", inside, re.DOTALL)]
        found.add(kind)
        at = end
    if not {b"meta", b"mdat"} <= found:
        raise ValueError(EARLY)
    width, height = max(sides, key=lambda pair: pair[0] * pair[1], default=(0, 0))
    return width, height, at


_KINDS = [
    Kind("a PNG", "png", ".png", rb"\x89PNG", _png),
    Kind("a JPEG", "jpeg", ".jpg", rb"\xff\xd8\xff", _jpeg),
    Kind("a GIF", "gif", ".gif", rb"GIF8[79]a", _gif),
    Kind("a WebP", "webp", ".webp", rb"RIFF.{4}WEBP", _webp),
    Kind("an AVIF", "avif", ".avif", rb".{4}ftyp(.{4}){0,30}?avi[fs]", _avif),
    Kind("a HEIC", "heic", ".heic", rb".{4}ftyp(he|mif1|msf1)"),
    Kind("a JPEG XL", "jxl", ".jxl", rb"\xff\x0a|\0\0\0\x0cJXL "),
    Kind("a TIFF", "tiff", ".tiff", rb"II\*\0|MM\0\*"),
    Kind("a BMP", "bmp", ".bmp", rb"BM.{4}\0{4}"),
    Kind("a PDF", "pdf", ".pdf", rb"%PDF-"),
    Kind("empty", "text", "", rb"\Z"),
    Kind("an SVG (vector)", "text", "", rb"(?i)[\xef\xbb\xbf\s]*(<\?xml.*)?<svg"),
    Kind("HTML", "text", "", rb"(?i)[\xef\xbb\xbf\s]*<(?!\?xml)"),
    Kind("XML", "text", "", rb"(?i)[\xef\xbb\xbf\s]*<\?xml"),
    Kind("JSON", "text", "", rb"(\xef\xbb\xbf)?\s*[{\[]"),
    Kind("text", "text", "", rb"[^\0-\x08\x0e-\x1a\x1c-\x1f]*\Z|\xff\xfe|\xfe\xff"),
    Kind("of an unknown kind", "unknown", ".bin", rb""),
]
EXTENSIONS = {kind.format: kind.extension for kind in _KINDS if kind.measure}
