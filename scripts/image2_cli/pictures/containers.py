"""Walks the containers of picture files to their true end: PNG, JPEG, GIF, WebP, AVIF.

A leaf: the standard library only. Reads the file it is handed, in pieces, forward; decodes no pixel. Whatever the
bytes are, a walk ends in (width, height, end) or in `NotRaster`, in bounded time and flat memory.
"""

from __future__ import annotations

import re
import struct
import zlib

PIECE = 256 * 1024  # bytes held in memory at once
MOST_LOOKS = 1_000_000  # steps of a walk: a 64 MiB GIF takes 262,144, so more is made to waste time
UNKNOWN = "not an image format known here (png, jpeg, webp, gif, avif)"


class NotRaster(ValueError):
    """The bytes are not one whole raster image; `str(e)` says why, in words ("a PNG that ends early")."""


class Source:
    """The file by offset, through a window of PIECE bytes; walks go forward, so bytes are read about once."""

    def __init__(self, file):
        self.file = file
        self.label = "a file"
        file.seek(0, 2)
        self.size = file.tell()
        self.start, self.window = 0, b""
        self.looks = 0

    def cut(self) -> NotRaster:
        return NotRaster(f"{self.label} that ends early")

    def damaged(self, part: str) -> NotRaster:
        return NotRaster(f"{self.label} with a damaged {part}")

    def look(self, at: int, count: int) -> bytes:
        """Exactly `count` (at most PIECE) bytes at offset `at`. Every step of a walk passes here: counted."""
        self.looks += 1
        if self.looks > MOST_LOOKS:
            raise NotRaster(f"{self.label} in more parts than any picture has")
        begin = at - self.start
        if begin < 0 or begin + count > len(self.window):
            if at + count > self.size:
                raise self.cut()
            self.file.seek(at)
            self.start, self.window, begin = at, self.file.read(PIECE), 0
            if count > len(self.window):  # the file shrank meanwhile
                raise self.cut()
        return self.window[begin : begin + count]

    def number(self, at: int, count: int, order: str = "big") -> int:
        return int.from_bytes(self.look(at, count), order)

    def pieces(self, at: int, stop: int):
        """The bytes from `at` to `stop`, in pieces."""
        while at < stop:
            self.look(at, 1)
            piece = self.window[at - self.start : stop - self.start]
            yield piece
            at += len(piece)

    def find(self, pattern, at: int) -> int:
        """The offset just behind the next match of a two-byte pattern at or behind `at`."""
        while True:
            self.look(at, 2)
            found = pattern.search(self.window, at - self.start)
            if found:
                return self.start + found.end()
            at = self.start + len(self.window) - 1  # the last byte may be the first half of a match


# Each walk answers (width, height, end), with end 0 where the container is whole but holds no picture.

# --- PNG: chunks, each with a checksum ---

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type


def png(source):
    if source.look(0, 8) != _PNG_SIGNATURE:
        raise source.damaged("signature (copied as text?)")
    at, width, height, data = 8, 0, 0, 0
    while True:
        length, kind = struct.unpack(">I4s", source.look(at, 8))
        if not kind.isalpha():
            raise source.damaged("chunk header")
        body, stop = at + 8, at + 8 + length
        checksum = 0
        for piece in source.pieces(at + 4, stop):
            checksum = zlib.crc32(piece, checksum)
        if checksum != source.number(stop, 4):
            raise source.damaged(f"{kind.decode()} chunk")
        if at == 8:
            if kind != b"IHDR" or length != 13:
                raise source.damaged("header")
            width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", source.look(body, 13))
            if depth not in _PNG_DEPTHS.get(colour, ()) or methods not in ([0, 0, 0], [0, 0, 1]):
                raise source.damaged("header")
        elif kind == b"IDAT":
            data += length
        elif kind == b"IEND":
            if length:
                raise source.damaged("IEND chunk")
            return width, height, (stop + 4 if data else 0)
        at = stop + 4


# --- JPEG: marked segments, with coded data behind each start of scan ---

# Inside coded data FF is followed by 00 (an escaped FF), D0-D7 (a restart) or FF (filling); 01 stands alone.
# Stray bytes between two segments are passed over in the same way, as decoders do.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


def jpeg(source):
    at, width, height, scans = 2, None, None, 0
    while True:
        at = source.find(_JPEG_MARKER, at)
        marker = source.number(at - 1, 1)
        if marker == _JPEG_END:
            return width, height, (at if scans else 0)
        length = source.number(at, 2)
        if marker < 0xC0 or marker == 0xD8 or length < 2:
            raise source.damaged("segment")
        if marker in _JPEG_FRAMES:
            height, width, components = struct.unpack(">HHB", source.look(at + 3, 5))
            if not components or length != 8 + 3 * components:
                raise source.damaged("frame header")
        elif marker == _JPEG_SCAN:
            if width is None:
                raise source.damaged("frame header")
            scans += 1
        at += length


# --- GIF: blocks of sub-blocks, to the trailer ---


def gif(source):
    width, height, flags = struct.unpack("<HHB", source.look(6, 5))
    at, frames = 13 + _gif_colours(flags), 0
    while True:
        kind = source.look(at, 1)
        if kind == b";":
            return width, height, (at + 1 if frames else 0)
        if kind == b",":
            data = at + 11 + _gif_colours(source.number(at + 9, 1))
            at = _gif_sub_blocks(source, data)
            frames += at > data + 1
        elif kind == b"!":
            at = _gif_sub_blocks(source, at + 2)
        else:
            raise source.damaged("block")


def _gif_colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_sub_blocks(source, at: int) -> int:
    while True:
        count = source.number(at, 1)
        at += 1 + count
        if not count:
            return at


# --- WebP: a RIFF file that says its size, and chunks in it ---


def webp(source):
    end = 8 + source.number(4, 4, "little")
    if end > source.size:
        raise source.cut()
    at, width, height, data = 12, 0, 0, 0
    while at < end:
        kind, length = struct.unpack("<4sI", source.look(at, 8))
        body, stop = at + 8, at + 8 + length
        if stop > end:
            raise source.damaged("chunk")
        if at == 12:
            width, height = _webp_size(source, kind, body, length)
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            data += length
        at = stop + length % 2  # padded to even; some writers leave the last pad byte out of the RIFF size
    return width, height, (end if data else 0)


def _webp_size(source, kind: bytes, body: int, length: int):
    if kind == b"VP8X" and length >= 10:
        return 1 + source.number(body + 4, 3, "little"), 1 + source.number(body + 7, 3, "little")
    if kind == b"VP8L" and length > 5 and source.look(body, 1) == b"\x2f":
        bits = source.number(body + 1, 4, "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and length > 10 and source.look(body + 3, 3) == b"\x9d\x01\x2a":
        return source.number(body + 6, 2, "little") & 0x3FFF, source.number(body + 8, 2, "little") & 0x3FFF
    raise source.damaged("first chunk")


# --- AVIF: boxes, without a last one ---

# Nothing in this format says "the end". It is where the boxes known here end, or where one comes again that a
# file has only once: a second file was appended. A cut between two boxes would then pass for whole, so the
# item locations are read too: all that they point to must lie before the end.
_AVIF_ONCE = frozenset((b"ftyp", b"meta", b"moov"))
_AVIF_BOXES = _AVIF_ONCE | {b"mdat", b"free", b"skip", b"uuid"}
_AVIF_HOLDERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # boxes of boxes: how many bytes precede the first one


def avif(source):
    at, inside, found, size, reach = 0, 0, set(), (0, 0), 0
    while at + 8 <= source.size:
        length, kind = struct.unpack(">I4s", source.look(at, 8))
        if at >= inside and (kind not in _AVIF_BOXES or kind in _AVIF_ONCE & found):
            break
        body = at + 8
        if length == 1:
            length, body = source.number(body, 8), body + 8
        stop = at + length
        if stop > source.size:
            raise source.cut()
        if stop < body or at < inside < stop:  # length 0 is "all that follows": its end could not be told
            raise source.damaged("box")
        if kind == b"ftyp":
            brands = source.look(body, min(stop - body, 4096))
            if not {b"avif", b"avis"} & {brands[i : i + 4] for i in range(0, len(brands), 4)}:
                raise NotRaster(f"HEIC or MP4: {UNKNOWN}")
        elif kind == b"iloc":
            reach = _avif_reach(source, body, stop)
        elif kind == b"ispe":  # tiles and thumbnails have one too: the largest is the picture's
            pair = struct.unpack(">II", source.look(body + 4, 8))
            size = max(pair, size, key=lambda sides: sides[0] * sides[1])
        found.add(kind)
        at = stop
        if kind in _AVIF_HOLDERS:  # step into it
            at, inside = body + _AVIF_HOLDERS[kind], max(inside, stop)
    if not {b"meta", b"iloc", b"mdat"} <= found or at < max(inside, reach):
        raise source.cut()
    return (*size, at)


def _avif_reach(source, at: int, stop: int) -> int:
    """The offset behind the last byte of any item, by the item location box (ISO/IEC 14496-12, 8.11.3)."""

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > stop:
            raise source.damaged("iloc box")
        return source.number(at - count, count)

    version, _, sizes = take(1), take(3), take(2)
    for_offset, for_length, for_base, for_index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide, reach = (4 if version == 2 else 2), 0
    for _ in range(take(wide)):
        take(wide)
        in_file = not (version and take(2) & 15)  # else the item lies in the meta box itself
        take(2)
        base = take(for_base)
        for _ in range(take(2)):
            take(for_index if version else 0)
            behind = base + take(for_offset) + take(for_length)
            reach = max(reach, behind if in_file else 0)
    return reach
