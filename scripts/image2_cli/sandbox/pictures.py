"""Placeholder pictures: striped PNG files that say SANDBOX in large letters.

Pure: numbers and text in, bytes out. Nobody should be able to take what is drawn here for a picture of the service.
"""

from __future__ import annotations

import colorsys
import struct
import zlib
from typing import Iterator

# Palette places. With a palette a pixel is one byte and rows are plain slices: 4096x4096 takes 0.1 s.
LIGHT, DARK, PANEL, INK = range(4)
# Their lightness and saturation; the hue is the caller's.
TONES = ((0.88, 0.55), (0.80, 0.50), (0.17, 0.45), (0.97, 0.60))

# Five columns by seven rows: the letters of SANDBOX, the digits, and what stands between digits.
FONT = {
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "N": "10001 11001 10101 10011 10001 10001 10001",
    "D": "11110 10001 10001 10001 10001 10001 11110",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "X": "10001 10001 01010 00100 01010 10001 10001",
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11110 00001 00001 01110 00001 00001 11110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "01110 10000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00001 01110",
    "x": "00000 00000 10001 01010 00100 01010 10001",
    "/": "00001 00001 00010 00100 01000 10000 10000",
}


def draw(width: int, height: int, lines: list[str], hue: float) -> bytes:
    """A PNG of exactly width x height pixels: stripes, and on them a panel with the lines of text.

    A small picture shows the first line only, a tiny one only stripes. `hue` counts turns of the colour wheel.
    """
    palette = b"".join(bytes(round(255 * part) for part in colorsys.hls_to_rgb(hue % 1, lightness, saturation))
                       for lightness, saturation in TONES)
    packer = zlib.compressobj(6)
    pixels = b"".join(packer.compress(b"\0" + row) for row in _rows(width, height, lines)) + packer.flush()
    return b"".join([
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"tEXt", b"Software\0image2-sandbox"),  # so that a program can tell, too
        _chunk(b"PLTE", palette),
        _chunk(b"IDAT", pixels),
        _chunk(b"IEND", b""),
    ])


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _rows(width: int, height: int, lines: list[str]) -> Iterator[bytes]:
    """The picture's rows from the top, each `width` palette places."""
    stripe = max(4, min(width, height) // 14)
    stripes = (bytes([LIGHT]) * stripe + bytes([DARK]) * stripe) * (width // (2 * stripe) + 2)
    panel = _panel(width, height, lines) or _panel(width, height, lines[:1])
    top = (height - len(panel)) // 2
    for y in range(height):
        start = y % (2 * stripe)  # each row is the one above, moved by one pixel: diagonals
        row = stripes[start:start + width]
        if 0 <= y - top < len(panel):
            inside = panel[y - top]
            left = (width - len(inside)) // 2
            row = row[:left] + inside + row[left + len(inside):]
        yield row


def _panel(width: int, height: int, lines: list[str]) -> list[bytes]:
    """The rows of the text on a dark ground, as large as fits into the picture; none where it does not fit."""
    dots = ["", ""]
    for line in lines:
        dots += ["0".join(parts) for parts in zip(*(FONT[letter].split() for letter in line))] + ["", ""]
    wide = max(map(len, dots)) + 4
    scale = int(min(width * 0.86 // wide, height * 0.86 // len(dots)))
    rows = []
    for row in dots:
        places = (bytes([INK if dot == "1" else PANEL]) for dot in row.center(wide, "0"))
        rows += [b"".join(place * scale for place in places)] * scale
    return rows
