"""A batch file -> its lines, each a checked order with its place; every mistake named with its line's number.

Reads the reference files that the lines name, and looks whether their places can be written; sends nothing.
Fields are named like the flags of `generate`, whose values on the command are the defaults of every line.
"""

from __future__ import annotations

import json
import os
import re
from typing import NamedTuple, Optional

from ..order import fields as request
from ..order import output as places
from ..order.reference import ReferenceProblem, image_of

FIELDS = ("prompt", "size", "n", "image", "model", "set", "out", "name")
MAX_LINES = 10_000
MAX_REFERENCES = 256 * 1024 * 1024  # characters of all data: URIs of a batch, each file counted once
MAX_OF_ONE = 48 * 1024 * 1024  # of one line's
EXPLAINED = 20  # wrong lines; of the others the numbers are enough
ENDS = re.compile("\r\n|\r|\n")  # splitlines() would also cut a JSON text at a U+2028 in its prompt
# One row like this and no row is a prompt: a JSON list would be paid for bracket by bracket.
JSON_ROW = re.compile(r"\{|\[\s*(\{|$)")


class Line(NamedTuple):
    """One order of a batch. `number` is its line in the file, from 1; `mark` the same for the same order again, and
    like no other in its folder.

    `is_relative`: a path in it starts from the working folder.
    """

    number: int
    request: request.ImageRequest
    place: places.Place
    stem: str
    mark: str
    is_relative: bool = False


def read(text: str, defaults: dict, out: Optional[str], overwrite: bool, service: str, mistakes: list) -> list:
    """The `Line`s of a batch file's text: JSONL where a row begins like an object, else a prompt a row.

    `defaults` are the fields given on the command; its `set` is an object. What is wrong goes into `mistakes`.
    """
    rows = [(number, row.strip()) for number, row in enumerate(ENDS.split(text), 1)]
    rows = [(number, row) for number, row in rows if row and not row.startswith("#")]
    if not rows:
        mistakes.append("the batch file holds no order")
    if len(rows) > MAX_LINES:
        mistakes.append("the batch file holds %d orders, %d are allowed" % (len(rows), MAX_LINES))
        return []
    reader = _Reader(defaults, out, overwrite, service, len(str(len(rows))))
    is_jsonl = any(JSON_ROW.match(row) for _number, row in rows)
    lines, wrong = [], {}
    for position, (number, row) in enumerate(rows, 1):
        found = []
        line = reader.line(number, position, row if is_jsonl else {"prompt": row}, found)
        lines += [line] if line else []
        if found:
            wrong[number] = found
    mistakes += _named(wrong)
    return lines


def _named(wrong: dict) -> list:
    """Every wrong line with its number, the first ones with what is wrong."""
    numbers = sorted(wrong)
    texts = ["line %d: %s" % (number, what) for number in numbers[:EXPLAINED] for what in wrong[number]]
    ranges = []
    for number in numbers[EXPLAINED:]:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    if ranges:
        texts.append("also wrong: lines %s" % ", ".join(
            "%d" % first if first == last else "%d-%d" % (first, last) for first, last in ranges))
    return texts


class _Reader:
    def __init__(self, defaults, out, overwrite, service, digits):
        self.defaults, self.out, self.overwrite, self.service = defaults, out, overwrite, service
        self.digits = max(3, digits)
        self.folder = places.resolve(out).folder
        self.files = {}  # a reference as it was written -> as the order carries it
        self.taken = {}  # file a line asked for -> its number
        self.times = {}  # (folder, mark) -> how often the same order came before

    def line(self, number, position, row, mistakes):
        fields = self._fields(row, mistakes)
        if fields is None:
            return None
        given = fields.get("image")
        paths = [fields.get("out"), *(given if isinstance(given, (list, tuple)) else [given])]
        fields["image"] = self._images(given, mistakes)
        asked, wrong = request.build(fields)
        mistakes += wrong
        place = self._place(fields, mistakes)
        prompt = fields.get("prompt")
        stem = place.stem or "%0*d-%s" % (self.digits, position, places.slug(prompt if isinstance(prompt, str) else ""))
        self._take(place.folder, stem, asked.n if asked else 1, number, mistakes)
        if mistakes:
            return None
        # Without the folder, for the records lie in it: one that was moved, or is reached by another path, was paid again.
        mark = asked.fingerprint("batch", self.service, place.stem or "")
        twin = os.path.realpath(place.folder), mark
        self.times[twin] = self.times.get(twin, 0) + 1
        return Line(number, asked, place, stem, "%s.%d" % (mark, self.times[twin]), any(map(_is_relative, paths)))

    def _fields(self, row, mistakes):
        if isinstance(row, str):
            try:
                row = json.loads(row)
            except (ValueError, RecursionError):
                mistakes.append("not JSON; every line of a JSONL file is one object")
                return None
            if not isinstance(row, dict):
                mistakes.append("not a JSON object")
                return None
        strange = [name for name in row if name not in FIELDS]
        if strange:
            mistakes.append("no such field: %s (allowed: %s)" % (", ".join(map(request.shown, strange[:3])),
                                                                  ", ".join(FIELDS)))
        given = {name: value for name, value in row.items() if value is not None}
        extra = given.get("set", {})
        if not isinstance(extra, dict):
            mistakes.append('set must be an object, as in {"quality": "high"}')
            extra = {}
        return {**self.defaults, **given, "set": {**self.defaults["set"], **extra}}

    def _images(self, given, mistakes):
        images = []
        for text in [given] if isinstance(given, str) else given if isinstance(given, (list, tuple)) else [given]:
            if text is None:
                continue
            if not isinstance(text, str):
                mistakes.append("image must be a URL, a path, or a list of them")
            else:
                images += self._image(text, mistakes)
        if sum(map(len, images)) > MAX_OF_ONE:
            mistakes.append("the reference files of one order are too large together: %d MB are allowed"
                            % (MAX_OF_ONE * 3 // 4 >> 20))
        return images

    def _image(self, text, mistakes):
        if text not in self.files:
            try:
                self.files[text] = image_of(text)
            except ReferenceProblem as problem:
                mistakes.append("image %s" % problem)
                return []
            if sum(map(len, self.files.values())) > MAX_REFERENCES:
                mistakes.append("the reference files of the batch are too large together (%d MB)"
                                % (MAX_REFERENCES * 3 // 4 >> 20))
        return [self.files[text]]

    def _place(self, fields, mistakes):
        name, out = fields.get("name"), fields.get("out")
        if name is not None and out is not None:
            mistakes.append("name and out contradict each other: name is a file in the output folder, out a path")
        for field, value in (("name", name), ("out", out)):
            if value is not None and (not isinstance(value, str) or not value.strip() or "\0" in value):
                mistakes.append("%s must be text" % field)
                return places.resolve(self.out)
        if name is not None:
            out = os.path.join(self.folder, name if name.lower().endswith(places.SUFFIXES) else name + ".png")
            if os.path.basename(name) != name or "\\" in name or not places.resolve(out).stem:
                mistakes.append("name %s must be a file's name without a folder" % request.shown(name))
        place = places.resolve(out or self.out, self.overwrite)
        wrong = places.mistake(place, 1) if place.stem else None  # as a name too long for the disk
        mistakes += [wrong] if wrong else []
        return place

    def _take(self, folder, stem, count, number, mistakes):
        """Claim the names of an order's pictures; whatever their suffix, for that follows from the bytes."""
        for step in range(1, count + 1):
            file = os.path.normcase(places.path_of(places.Place(folder), stem, step, ""))
            other = self.taken.setdefault(file, number)
            if other != number:
                mistakes.append("the same file name as line %d" % other)
                return


def _is_relative(path) -> bool:
    return bool(path) and "://" not in path and not os.path.isabs(os.path.expanduser(path))
