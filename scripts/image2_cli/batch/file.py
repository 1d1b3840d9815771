"""A batch file -> its lines, each a checked order with its output; every mistake named with its line's number.

Reads the reference files that the lines name, and looks whether their outputs can be written; sends nothing. The fields
of a line are those of the table of order fields, and `out` and `name`; the command's flags are the defaults of every line.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any, Mapping, NamedTuple, Optional

from ..order.fields import FIELDS, FURTHER, ImageRequest, build, merged
from ..order.output import FOREIGN, SUFFIXES, Output, mistake, path_of, replaced_reference, resolve, slug
from ..order.reference import References
from ..text import shown
from .formats import Row, numbered, rows_of

ALLOWED = (*(row.name for row in FIELDS), "out", "name")
MAX_LINES = 10_000
NO_NAME = "[\0\ud800-\udfff]"
EXPLAINED, MOST_EXPLAINED = 20, 8_000  # wrong lines, and the characters about them; of the others the numbers are enough
NEAR = {**{name.replace("-", "_"): row.name for row in FIELDS for name in row.guesses},
        **dict.fromkeys(("filename", "file_name", "file", "title", "id", "slug"), "name"),
        **dict.fromkeys(("output", "output_path", "path", "folder", "dir", "out_dir"), "out")}


class Line(NamedTuple):
    """One order of a batch. `number` is its line in the file, from 1 (of a JSON list: its entry).

    `is_relative`: a path in it starts from the working folder.
    """

    number: int
    request: ImageRequest
    output: Output
    stem: str
    fingerprint: str
    is_relative: bool = False


class BatchFile(NamedTuple):
    """With any mistake nothing of it may be ordered."""

    lines: list[Line]
    mistakes: list[str]
    warnings: list[str]


def read(text: str, defaults: Mapping[str, Any], out: Optional[str], overwrite: bool, service: str) -> BatchFile:
    """The orders of a batch file's text. `defaults`: the command's flags by the names of the table."""
    found = rows_of(text)
    warnings = [f"{found.passed_over} line(s) passed over: they begin with #."] if found.passed_over else []
    if not found.rows:
        return BatchFile([], found.mistakes or ["the batch file holds no order"], warnings)
    if len(found.rows) > MAX_LINES:
        return BatchFile([], [f"the batch file holds {len(found.rows)} orders, {MAX_LINES} are allowed"], warnings)
    reader = _Reader(defaults, out, overwrite, service, len(found.rows))
    for position, row in enumerate(found.rows, 1):
        reader.add(position, row)
    mistakes = [*found.mistakes, *reader.mistakes, *_explained(reader.wrong, found.entry)]
    places = {(line.output.folder, line.stem) for line in reader.lines} if overwrite else set()
    replaced = replaced_reference(reader.used, places)
    return BatchFile(reader.lines, [*mistakes, replaced] if replaced else mistakes, warnings)


def _explained(wrong: Mapping[int, list[str]], entry: str) -> list[str]:
    texts: list[str] = []
    numbers = list(wrong)
    while numbers and len(texts) < EXPLAINED and sum(map(len, texts)) < MOST_EXPLAINED:
        number = numbers.pop(0)
        texts += [f"{entry} {number}: {text}" for text in wrong[number]]
    return [*texts, f"also wrong: {numbered(entry, numbers)}"] if numbers else texts


class _Reader:
    """What the lines of one file come to. `mistakes` are those of the command's own flags, named once."""

    def __init__(self, defaults: Mapping[str, Any], out: Optional[str], overwrite: bool, service: str, count: int) -> None:
        self.overwrite, self.service = overwrite, service
        self.digits = max(3, len(str(count)))
        self.output = resolve(out, overwrite)
        self.references = References()
        self.lines: list[Line] = []
        self.wrong: dict[int, list[str]] = {}  # number of a line -> its mistakes
        self.taken: dict[str, int] = {}  # file a line asked for -> its number
        self.times: Counter[tuple[str, str]] = Counter()  # (folder, order) -> how often it came
        self.used: list[str] = list(defaults.get("image") or ())  # the reference images of all lines
        images, unusable = self.references.images(self.used)
        request, wrong = build({"prompt": "any", **defaults, "image": images})
        self.defaults: Mapping[str, Any] = defaults if request and not unusable else {}
        self.mistakes = [*(f"--image {text}" for text in unusable), *wrong]

    def add(self, position: int, row: Row) -> None:
        """Read a row into `lines` or `wrong`."""
        values = row.value if isinstance(row.value, dict) else {"prompt": row.value}
        given = {name: value for name, value in values.items() if value is not None}
        fields = merged(self.defaults, {name: value for name, value in given.items() if name in ALLOWED})
        paths = _paths(fields.get("image"))
        images, unusable = self.references.images(paths)
        self.used += [] if unusable else paths
        request, unfit = build({**fields, "image": images} if paths else fields, in_line=True)
        if "prompt" not in given:
            unfit = [text for text in unfit if not text.startswith("the prompt ")]
        output, unwritable = self._output(fields.get("name"), fields.get("out"))
        mistakes = [*_field_mistakes(given), *(f"image {text}" for text in unusable), *unwritable, *unfit]
        words = slug(fields["prompt"] if isinstance(fields.get("prompt"), str) else None)
        stem = output.stem or f"{position:0{self.digits}d}-{words}"
        twin = None if self.output.stem else self._taken_by(output.folder, stem, request.n if request else 1, row.number)
        if twin:
            mistakes.append(f"the same file name as line {twin}")
        if mistakes or not request:
            self.wrong[row.number] = mistakes
        else:
            is_relative = any(map(_is_relative, [*paths, fields.get("out")]))
            self.lines.append(Line(row.number, request, output, stem, self._fingerprint(request, output), is_relative))

    def _fingerprint(self, request: ImageRequest, output: Output) -> str:
        # Without the folder, for the records lie in it: one that was moved, or is reached by another path, was paid again.
        first = os.path.realpath(output.folder), request.fingerprint(self.service, output.stem or "")
        self.times[first] += 1
        return request.fingerprint(self.service, output.stem or "", self.times[first])

    def _output(self, name: Any, out: Any) -> tuple[Output, list[str]]:
        for label, value in (("name", name), ("out", out)):
            if value is not None and (not isinstance(value, str) or not value.strip() or re.search(NO_NAME, value)):
                return self.output, [f"{label} must be text"]
        if name and out:
            return self.output, ["name and out contradict each other: name is a file in the output folder, out a path"]
        if name:
            if os.path.basename(name) != name or "\\" in name or name in (".", ".."):
                return self.output, [f"name {shown(name)} must be a file's name without a folder"]
            is_picture = name.lower().endswith(SUFFIXES) or os.path.splitext(name)[1].lower() in FOREIGN
            out = os.path.join(self.output.folder, name if is_picture else f"{name}.png")
        if not out:
            return self.output, []
        output = resolve(out, self.overwrite)
        unwritable = mistake(output)
        return output, [unwritable] if unwritable else []

    def _taken_by(self, folder: str, stem: str, count: int, number: int) -> Optional[int]:
        """Claim the names of an order's pictures, whatever their suffix, for that follows from the bytes."""
        for step in range(1, count + 1):
            file = os.path.normcase(path_of(Output(os.path.realpath(folder)), stem, step, ""))
            other = self.taken.setdefault(file, number)
            if other != number:
                return other
        return None


def _field_mistakes(given: Mapping[str, Any]) -> list[str]:
    """Fields that no line has, each with the one that is meant; and the prompt where it is missing."""
    meant = {name: _meant(name) for name in given if name not in ALLOWED}
    mistakes = [f"no field {shown(name)}{f': write {field}' if field else ''}" for name, field in list(meant.items())[:3]]
    if len(meant) > 3 or None in meant.values():
        mistakes[-1] += f" (allowed: {', '.join(ALLOWED)})"
    if "prompt" not in given and "prompt" not in meant.values():
        mistakes.append('"prompt" is missing')
    return mistakes


def _meant(name: str) -> Optional[str]:
    import difflib

    plain = name.strip().lower().replace("-", "_")
    if plain.replace("_", "-") in FURTHER:
        return f'it in set: {{"set": {{"{plain}": …}}}}'
    near = [NEAR[plain]] if plain in NEAR else difflib.get_close_matches(plain, ALLOWED, 1, 0.75)
    return near[0] if near else None


def _paths(given: Any) -> list[str]:
    """The images of a line, where they are texts; `build` refuses all else."""
    images = [given] if isinstance(given, str) else given
    is_list = isinstance(images, (list, tuple)) and all(isinstance(image, str) for image in images)
    return list(images) if is_list else []


def _is_relative(path: Optional[str]) -> bool:
    return bool(path) and "://" not in str(path) and not os.path.isabs(os.path.expanduser(str(path)))
