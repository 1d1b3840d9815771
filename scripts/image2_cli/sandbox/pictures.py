"""Placeholder pictures: striped PNG files that say SANDBOX in large letters.

Pure: numbers and text in, bytes out. Touches no disk and no network, and imports nothing of ours. Nobody
should be able to take what is drawn here for a picture the service made.
"""

from __future__ import annotations

import colorsys
import struct
import zlib

# Palette places. With a palette a pixel is one byte and rows are plain slices: 4096x4096 takes 0.1 s.
LIGHT, DARK, EDGE, PANEL, FRAME, INK = range(6)
# Their lightness and saturation; the hue is the caller's.
TONES = ((0.88, 0.55), (0.80, 0.50), (0.84, 0.52), (0.17, 0.45), (0.55, 0.60), (0.97, 0.60))

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

    The first line is the title, twice as large as the others. What does not fit is left out: a small picture
    shows the title only, a tiny one only stripes. Only characters of FONT can be drawn. `hue` is a turn of
    the colour wheel; only its fraction counts, so 0.25 and 7.25 are the same colour.
    """
    palette = b"".join(
        bytes(round(255 * part) for part in colorsys.hls_to_rgb(hue % 1, lightness, saturation))
        for lightness, saturation in TONES
    )
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


def _rows(width: int, height: int, lines: list[str]):
    """The picture's rows from the top, each `width` palette places."""
    stripe = max(4, min(width, height) // 14)
    period = 2 * stripe
    # One pixel of EDGE between two stripes softens the steps of the diagonal.
    once = bytes([LIGHT]) * (stripe - 1) + bytes([EDGE]) + bytes([DARK]) * (stripe - 1) + bytes([EDGE])
    tape = once * (width // period + 2)
    panel, scale = _fitted_panel(width, height, lines)
    left = (width - scale * len(panel[0])) // 2 if panel else 0
    top = (height - scale * len(panel)) // 2
    panel = [b"".join(bytes([place]) * scale for place in row) for row in panel]
    for y in range(height):
        row = tape[y % period:y % period + width]  # each row is the one above, moved by one pixel: diagonals
        line = (y - top) // scale
        if 0 <= line < len(panel):
            row = row[:left] + panel[line] + row[left + len(panel[line]):]
        yield row


def _fitted_panel(width: int, height: int, lines: list[str]) -> tuple[list[bytes], int]:
    """The fullest panel that fits, and how many pixels one of its dots may take; no rows where none fits."""
    for shown, title_zoom in ((lines, 2), (lines[:1], 1)):
        panel = _panel(shown, title_zoom)
        scale = min(width * 0.86 // len(panel[0]), height * 0.86 // len(panel))
        if scale >= 1:
            return panel, int(scale)
    return [], 1


def _panel(lines: list[str], title_zoom: int) -> list[bytes]:
    """Framed text, one palette place for each dot of the font."""
    text = []
    for number, line in enumerate(lines):
        zoom = 1 if number else title_zoom
        text += [""] * (2 * title_zoom if number else 0)
        for part in zip(*(FONT[letter].split() for letter in line)):
            text += ["".join(dot * zoom for dot in "0".join(part))] * zoom
    wide = max(map(len, text))
    margin = 2 * title_zoom
    blank = ["0" * (wide + 2 * margin)] * margin
    rows = blank + [dots.center(wide, "0").center(wide + 2 * margin, "0") for dots in text] + blank
    frame = bytes([FRAME])
    inside = [frame + bytes(INK if dot == "1" else PANEL for dot in row) + frame for row in rows]
    return [frame * len(inside[0]), *inside, frame * len(inside[0])]
