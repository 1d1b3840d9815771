"""Where an order's pictures go: the folder, their names, and whether they can be written at all.

Touches the disk, never the network. A name comes from the user's words or the task, never from the service.
"""

from __future__ import annotations

import os
import re
from typing import Collection, Iterable, NamedTuple, Optional

from ..errors import Image2Error
from ..text import harmless, shown

DEFAULT_FOLDER = "image2-output"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")
# endings that no picture of the service has, and no folder that is made here
FOREIGN = (".svg", ".pdf", ".tiff", ".tif", ".bmp", ".ico", ".icns", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd", ".ai",
           ".eps", ".raw", ".dng", ".mp4", ".mov", ".webm", ".txt", ".md", ".json", ".jsonl", ".csv", ".html", ".docx")
ROOM_PER_IMAGE = 16 << 20
MOST_CHARACTERS, MOST_BYTES, LONGEST_WORD = 40, 100, 32  # of a name made of a prompt
DEVICE = r"(?i)con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$"


class Output(NamedTuple):
    """An absolute folder, and a file's stem and suffix, None where only a folder was named."""

    folder: str
    stem: Optional[str] = None
    suffix: Optional[str] = None
    overwrite: bool = False

    @property
    def named(self) -> str:
        """The path that the user named; one that is the same for `resolve`."""
        if self.stem:
            return os.path.join(self.folder, f"{self.stem}{self.suffix}")
        return f"{self.folder}{os.sep}" if self.folder.lower().endswith(SUFFIXES) else self.folder


def resolve(out: Optional[str], overwrite: bool = False) -> Output:
    """`--out` -> `Output`: a path that ends like an image is a file, anything else a folder."""
    try:
        path = os.path.abspath(os.path.expanduser(out or DEFAULT_FOLDER))
    except FileNotFoundError:
        raise Image2Error("output_not_writable", "The working folder was deleted; nothing was sent. Change to one that "
                          "exists.") from None
    stem, suffix = os.path.splitext(os.path.basename(path))
    if suffix.lower() in SUFFIXES and not (out or "").endswith(("/", os.sep)):
        return Output(os.path.dirname(path), stem, suffix, overwrite)
    return Output(path, overwrite=overwrite)


def mistake(output: Output, os_name: str = os.name) -> Optional[str]:
    """Why no picture can be written there, or None. Looks only; `make` is what tries."""
    wrong = _name_mistake(output.named, os_name)
    if wrong:
        return wrong
    standing = _standing(output.folder)
    if output.stem and os.path.isdir(output.named):
        return f"--out {shown(output.named, 200)} is a folder with a picture's ending: choose another name"
    if not os.path.isdir(standing):
        return f"--out: {shown(standing, 200)} is a file in the way of the folder"
    if not os.access(standing, os.W_OK | os.X_OK):
        return f"--out: {shown(standing, 200)} is not writable"
    for folder in (output.folder, standing):  # in a folder that is not there yet no name is too long
        try:
            os.lstat(path_of(Output(folder), output.stem or "x", 99, max(SUFFIXES, key=len)))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # too long, which must not be found out after paying; a NUL
            return f"--out {shown(output.named, 200)} is not writable ({getattr(error, 'strerror', None) or error})"
    return None


def replaced_reference(references: Iterable[str], places: Collection[tuple[str, str]]) -> Optional[str]:
    """Which of these files would be replaced by pictures of these (folder, stem), if any. With `--overwrite` the same
    command would then be another order each time, and be paid again. Any number and ending counts: both may come."""
    taken = {(os.path.realpath(folder), stem.lower()) for folder, stem in places}
    for reference in references:
        folder, name = os.path.split(os.path.realpath(os.path.expanduser(reference)))
        stem = os.path.splitext(name)[0].lower()
        if {(folder, stem), (folder, re.sub(r"-[0-9]+$", "", stem))} & taken:
            return f"--overwrite would replace the reference image {shown(reference, 200)}: choose another --out"
    return None


def room_mistake(folder: str, images: int) -> Optional[str]:
    """Why so many pictures find no room there, or None. Only for what is still to be ordered."""
    import shutil

    try:
        free = shutil.disk_usage(_standing(folder)).free
    except (OSError, ValueError):
        return None
    if free >= images * ROOM_PER_IMAGE:
        return None
    return (f"--out {shown(folder, 200)} has {free >> 20} MB free, {images * ROOM_PER_IMAGE >> 20} are wanted "
            f"for {images} images")


def make(folder: str) -> None:
    """Create an output folder and try a file in it. Raises `Image2Error` output_not_writable."""
    import tempfile

    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Image2Error("output_not_writable", f"--out {shown(folder, 200)} is not writable ({error.strerror or error}). "
                          "Nothing was sent; choose another folder.") from None


def slug(text: Optional[str]) -> str:
    """A file's stem out of a prompt: its first words, in any script with their marks, as every file system takes them."""
    stem = ""
    for word in _words(harmless((text or "")[:400])):
        first = word.encode("utf-8")[: MOST_BYTES - 4].decode("utf-8", "ignore")[:LONGEST_WORD]
        longer = f"{stem}-{word}" if stem else first
        if len(longer) > MOST_CHARACTERS or len(longer.encode("utf-8")) > MOST_BYTES:
            break
        stem = longer
    return f"image-{stem}" if re.fullmatch(DEVICE, stem) else stem or "image"


def path_of(output: Output, stem: str, number: int, extension: str) -> str:
    """The `number`-th (from 1) name: `stem.png`, `stem-2.png`, …"""
    return os.path.join(output.folder, f"{stem}{'' if number == 1 else f'-{number}'}{extension}")


def first_number(output: Output, stem: str, count: int) -> int:
    """The number from which `count` names in a row are free, whatever their extension."""
    number = 1
    while not output.overwrite and any(os.path.lexists(path_of(output, stem, number + step, ending))
                                       for step in range(count) for ending in SUFFIXES):
        number += 1
    return number


def paths_to_be(output: Output, stem: str, count: int) -> list[str]:
    """The paths that so many pictures would get now, were they PNG."""
    first = first_number(output, stem, count)
    return [path_of(output, stem, first + step, output.suffix or ".png") for step in range(count)]


def free_name(folder: str, stem: str, ending: str, beginning: bytes) -> str:
    """The first numbered path that is free or whose file begins like those of this tool; others are never replaced, nor
    is a link, a pipe or what cannot be read."""
    number = 1
    while True:
        path = path_of(Output(folder), stem, number, ending)
        try:
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    if file.read(len(beginning)) == beginning:
                        return path
            elif not os.path.lexists(path):
                return path
        except OSError:  # not ours to read
            pass
        number += 1


def extension_for(output: Output, saved_extension: str) -> str:
    """The extension that the bytes ask for; the user's own spelling where it means the same."""
    given = output.suffix or ""
    is_same = given.lower() == saved_extension or {given.lower(), saved_extension} == {".jpg", ".jpeg"}
    return given if is_same else saved_extension


def _name_mistake(path: str, os_name: str) -> Optional[str]:
    base = os.path.basename(path)
    stem, ending = os.path.splitext(base)
    if re.search("[\ud800-\udfff]", path):  # no answer could name it, and a `next` that names another folder pays again
        return f"--out {shown(path, 200)} is no UTF-8: choose another name"
    if path != path.rstrip():
        return f"--out {shown(path, 200)} has a blank at its end: choose another name"
    if ending.lower() in FOREIGN and not os.path.isdir(path):
        return (f"--out {shown(base, 100)}: pictures come as PNG, JPEG or WebP, not as {ending}: "
                f"type {shown(f'{stem}.png', 100)}")
    if os_name != "nt":
        return None
    for part in re.split(r"[\\/]", re.sub(r"^(\\\\\?\\)?[A-Za-z]:", "", path)):
        if re.fullmatch(DEVICE, re.split("[.:]", part)[0].rstrip()):
            return f"--out {shown(part, 100)} is the name of a device on Windows: choose another name"
        if re.search(r'[<>:"|?*\x00-\x1f]', part) or (part.strip(".") and part != part.rstrip(". ")):
            return f'--out {shown(part, 100)} is no name on Windows (none of < > : " | ? *, no dot or blank at the end)'
    return None


def _standing(folder: str) -> str:
    """What of the folder is there already."""
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


def _words(text: str) -> list[str]:
    """Runs of letters, digits and the marks on them: `\\w` alone loses the vowels of Hindi, Thai, Arabic and Hebrew."""
    import unicodedata

    text = unicodedata.normalize("NFC", text.lower())
    kept = "".join(char if char.isalnum() or unicodedata.category(char) in ("Mn", "Mc") else " " for char in text)
    words = [re.sub(r"^\W+", "", word) for word in kept.split()]  # a mark needs a letter to stand on
    return [word for word in words if word]
