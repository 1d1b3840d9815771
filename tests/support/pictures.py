"""Small whole pictures of every format, written with the standard library alone, for every test that needs one.

Every picture but the AVIF can be decoded. The AVIF has the true boxes around a picture that is none.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable, Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(width: int = 16, height: int = 8, color: tuple[int, int, int] = (200, 80, 40), noise_bytes: int = 0) -> bytes:
    """One color. `noise_bytes` makes the file larger by about that much, which nothing compresses."""
    rows = (b"\0" + bytes(color) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    noise = [png_chunk(b"noIs", piece) for piece in _noise(noise_bytes)]
    chunks = [png_chunk(b"IHDR", header), *noise, png_chunk(b"IDAT", zlib.compress(rows, 9)), png_chunk(b"IEND", b"")]
    return b"".join([PNG_SIGNATURE, *chunks])


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _noise(count: int) -> Iterator[bytes]:
    source = random.Random(count)
    while count > 0:
        yield source.randbytes(min(count, 1 << 20))
        count -= 1 << 20


def jpeg(width: int = 16, height: int = 8, progressive: bool = False) -> bytes:
    """Mid-grey: a block is one bit "no difference" and one bit "nothing more", so the data is all zeros."""
    blocks = -(-width // 8) * -(-height // 8)
    one_code = bytes([1]) + bytes(15) + b"\0"  # a Huffman table of the single code 0 -> 0
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    scans = [(0, 0, blocks), (1, 63, blocks)] if progressive else [(0, 63, 2 * blocks)]
    return b"".join(
        [
            b"\xff\xd8",
            jpeg_segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            jpeg_segment(0xDB, b"\0" + b"\x01" * 64),
            jpeg_segment(0xC2 if progressive else 0xC0, frame),
            jpeg_segment(0xC4, b"\x00" + one_code + b"\x10" + one_code),
            *(jpeg_segment(0xDA, bytes([1, 1, 0, first, last, 0])) + _zeros(bits) for first, last, bits in scans),
            b"\xff\xd9",
        ]
    )


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def _zeros(bits: int) -> bytes:
    """That many zero bits, the last byte filled up with ones."""
    return bytes(bits // 8) + (bytes([0xFF >> bits % 8]) if bits % 8 else b"")


def gif(width: int = 16, height: int = 8, color: tuple[int, int, int] = (200, 80, 40)) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(color) + bytes(3)
    # codes of three bits: "start anew" (4) and "color 0" for each pixel, so they never grow; "end" (5)
    data = _bits([(4, 3), (0, 3)] * width * height + [(5, 3)])
    blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02"
    frame += b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return b"GIF89a" + screen + frame + b";"


def webp(width: int = 16, height: int = 8, color: tuple[int, int, int] = (200, 80, 40)) -> bytes:
    """Lossless: five Huffman codes (green, red, blue, alpha, distance) of one symbol: no bit a pixel."""
    red, green, blue = color
    symbols = [(0b101 | symbol << 3, 11) for symbol in (green, red, blue, 255)] + [(0b001, 4)]
    bits = [(width - 1, 14), (height - 1, 14), (0, 4), (0, 3), *symbols]
    return riff(riff_chunk(b"VP8L", b"\x2f" + _bits(bits)))


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _bits(values: Iterable[tuple[int, int]]) -> bytes:
    """(value, how many bits) one behind the other, the lowest bit first."""
    total = length = 0
    for value, count in values:
        total |= value << length
        length += count
    return total.to_bytes(-(-length // 8), "little")


def avif(width: int = 16, height: int = 8) -> bytes:
    ftyp, data = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf"), b"not really an AV1 picture"

    def meta(offset: int) -> bytes:
        return box(
            b"meta",
            bytes(4)
            + box(b"hdlr", bytes(8) + b"pict" + bytes(13))
            + box(b"pitm", bytes(4) + b"\0\x01")
            + box(b"iloc", bytes(4) + struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, len(data)))
            + box(b"iprp", box(b"ipco", box(b"ispe", bytes(4) + struct.pack(">II", width, height)))),
        )

    return ftyp + meta(len(ftyp + meta(0)) + 8) + box(b"mdat", data)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def every() -> dict[str, bytes]:
    """One picture of each format, 16 x 8 pixels, by the name of its format."""
    return {"png": png(), "jpeg": jpeg(), "gif": gif(), "webp": webp(), "avif": avif()}
