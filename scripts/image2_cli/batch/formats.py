"""What the text of a batch file is: prompts, JSONL, one JSON list; or a foreign format, which is refused by its name.

A table that was taken for prompts was paid for row by row, its header too; a refusal costs nothing. So the rule asks for
marks that prose does not have, and where there are none, the rows are prompts. Its limits: a CSV without a header,
quotation marks, file names, sizes or numbers in a column (`a fox,blue`) is prompts; prompts that all begin with `- `, that
count themselves (`1.`, `2.`) or that all stand in quotation marks are refused.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Iterator, NamedTuple, Optional

ENDS = re.compile("\r\n|\r|\n")  # splitlines() would also cut a JSON text at a U+2028 in its prompt
JSON_LIST = re.compile(r"\s*\[\s*(?:[{\"\]]|\[\W|$)")
JSON_OBJECT = re.compile(r"\{\s*(?:[\"'}]|$|\w+\s*:)")
LONGEST_NUMBERS = 400
INSTEAD = 'send one prompt a line, or JSONL, one order a line: {"prompt": "a red fox", "name": "fox.png"}'
PROMPT_HEADERS = {"prompt", "prompts", "image prompt", "image_prompt", "提示词"}
HEADERS = {*PROMPT_HEADERS, "text", "description", "caption", "title", "name", "filename", "file", "file_name", "size", "n",
           "count", "image", "model", "out", "output", "id", "style", "quality", "no", "#", "index", "名称", "notes"}
FILE_CELL = re.compile(r"[^\s/\\,;]+\.(png|jpe?g|webp|gif|avif)", re.I)  # a column of files' names is no prose
SHORT_CELL = re.compile(r"\d{1,4}|\d{2,5}x\d{2,5}|https?://\S+", re.I)  # nor is one of these, without blanks before it
QUOTED = r'"(?:[^"]|"")*"'
FIRST = next  # of an iterator over the rows: beside `any` and `all`, the one that asks the first row alone
# any, all or the first of the rows begin so: what the file is then
MARKS: tuple[tuple[Callable[[Iterator[object]], object], str, str], ...] = (
    (any, r'"\{\s*""\w+""\s*:', "JSONL that went through a spreadsheet (its quotation marks are doubled)"),
    (FIRST, r"(?i)<!doctype|<html|<\?xml", "HTML or XML"),
    (FIRST, r"%PDF-|PK\x03\x04|\{\\rtf", "a document (PDF, Word, Excel)"),
    (any, "```", "Markdown with a code block"),
    (any, r"\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*)+\|?$", "a Markdown table"),
    (all, r"\|.*\|$", "a Markdown table"),
    (any, r"(?:-\s+)?[\"']?(?:prompt|prompts|orders)[\"']?\s*:(?:\s|$)", "YAML"),
    (FIRST, "---$", "YAML"),
    (any, r"prompts?\s*=", "TOML"),
    (all, r"[-*•+]\s+\S", "a list in Markdown or YAML (without its marks it is a batch)"),
    (FIRST, "sep=.$", "CSV"),
)


class Row(NamedTuple):
    """One order as it stands in the file: its number (a line, from 1; of a JSON list the entry), a prompt or an object."""

    number: int
    value: Any


class Rows(NamedTuple):
    """What a file holds. `passed_over` counts the lines that begin with `#`; `entry` is what a number counts."""

    rows: list[Row]
    mistakes: list[str]
    passed_over: int = 0
    entry: str = "line"


def rows_of(text: str) -> Rows:
    """The rows of a batch file's text, or what is wrong with all of it."""
    text = text.lstrip("\ufeff")
    lines = [Row(number, line.strip()) for number, line in enumerate(ENDS.split(text), 1) if line.strip()]
    rows = [row for row in lines if not row.value.startswith("#")]
    passed_over = len(lines) - len(rows)
    if JSON_LIST.match(text) or (rows and rows[0].value == "{"):
        return _whole(text)
    if any(JSON_OBJECT.match(row.value) for row in rows):
        return _jsonl(rows, passed_over)
    foreign = _foreign([row.value for row in rows]) if rows else None
    if foreign:
        return Rows([], [f"the file is {foreign}, not a batch: {INSTEAD}"])
    return Rows(rows, [], passed_over)


def numbered(word: str, numbers: list[int]) -> str:
    """`line 3`, `lines 3, 5-9`: every number, the neighbours together."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
    if len(text) > LONGEST_NUMBERS:
        text = text[:LONGEST_NUMBERS].rpartition(",")[0] + "…"
    many = "entries" if word == "entry" else "lines"
    return f"{word if len(numbers) == 1 else many} {text}"


def _whole(text: str) -> Rows:
    """A JSON list, or one object over several lines."""
    found, wrong = _loads(text)
    if wrong:
        return Rows([], [f"the JSON is broken: {wrong}"])
    entries = found if isinstance(found, list) else [found]
    strange = [number for number, entry in enumerate(entries, 1) if not isinstance(entry, (dict, str))]
    if strange:
        return Rows([], [f"{numbered('entry', strange)}: an entry of the JSON list is an object or a text"])
    return Rows([Row(number, entry) for number, entry in enumerate(entries, 1)], [], 0, "entry")


def _jsonl(lines: list[Row], passed_over: int) -> Rows:
    rows: list[Row] = []
    broken: list[int] = []
    mistakes: list[str] = []
    for number, line in lines:
        value, wrong = _loads(line, number)
        if isinstance(value, dict):
            rows.append(Row(number, value))
        elif not mistakes:
            mistakes.append(wrong or f'line {number}: not a JSON object: every line of JSONL is one, {{"prompt": "…"}}')
        else:
            broken.append(number)
    if broken:
        mistakes.append(f"{numbered('line', broken)}: no JSON object either")
    return Rows(rows, mistakes, passed_over)


def _loads(text: str, line: int = 1) -> tuple[Any, str]:
    """(the JSON value, what is wrong with it: line, column, what was expected there)."""
    try:
        return json.loads(text), ""
    except RecursionError:
        return None, f"line {line}: JSON that is nested too deep"
    except json.JSONDecodeError as error:
        reason = f"{error.msg[0].lower()}{error.msg[1:]}"
        if reason == "extra data":
            reason = "one object a line, and nothing behind it"
        return None, f"line {line + error.lineno - 1}, column {error.colno}: no JSON: {reason}"
    except ValueError:  # an integer of thousands of digits
        return None, f"line {line}: JSON with a number that is too long"


def _foreign(rows: list[str]) -> Optional[str]:
    for which, beginning, name in MARKS:
        if which(map(re.compile(beginning).match, rows)):
            return name
    if len(rows) > 1:
        if re.fullmatch(r"[\w-]+:", rows[0]) and rows[1].startswith("- "):
            return "YAML"
        if all(re.match(rf"{number}[.)]\s", row) for number, row in enumerate(rows, 1)):
            return "a numbered list (without its numbers it is a batch)"
        if all(re.fullmatch(QUOTED + ",?", row) for row in rows):
            return "quoted texts, as CSV or a part of JSON (without the quotation marks they are a batch)"
    return _table(rows)


def _table(rows: list[str]) -> Optional[str]:
    """Tab, semicolon or comma separated values: by a header, or by what stands in every row and is no prose."""
    for mark, name in (("\t", "TSV (tabs between the cells)"), (";", "CSV with semicolons"), (",", "CSV")):
        cells = [[cell.strip().strip('"') for cell in _cells(row, mark)] for row in rows]
        heads = {cell.lower() for cell in cells[0]}
        if len(rows) > 1 and (heads & PROMPT_HEADERS or (len(heads) > 1 and heads <= HEADERS)):
            return name if len(heads) > 1 else "CSV of one column (its first row is a header)"
        if min(map(len, cells)) > 1 and _is_table(rows, cells, mark):
            return name
    return None


def _is_table(rows: list[str], cells: list[list[str]], mark: str) -> bool:
    """Every row has the mark; is there more to it than prose has?"""
    if mark == "\t" or all(re.match(rf"{QUOTED}\s*{mark}\S", row) for row in rows):
        return True
    is_tight = not any(re.search(rf"{mark}(\s|$)", row) for row in rows)
    for column in ([row[0] for row in cells], [row[-1] for row in cells]):
        if all(map(FILE_CELL.fullmatch, column)) or (is_tight and all(map(SHORT_CELL.fullmatch, column))):
            return True
    return mark == ";" and is_tight and len(rows) > 1 and len(set(map(len, cells))) == 1


def _cells(row: str, mark: str) -> list[str]:
    """The row cut at its marks, but not inside quotation marks (unless one has no partner: 5" is an inch)."""
    parts = row.split('"')
    if len(parts) % 2 == 0:
        return row.split(mark)
    return '"'.join(part if inside % 2 else part.replace(mark, "\0") for inside, part in enumerate(parts)).split("\0")
