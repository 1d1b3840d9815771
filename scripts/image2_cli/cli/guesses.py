"""What agents and people type instead of a flag, and what to type for it. Read only where a line was not understood.

Whatever is refused is one mistake, and its value is not counted as a second one. What may be a key is never repeated.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from typing import Optional

from ..order.fields import FIELDS, FURTHER, size_meant
from ..text import WITHHELD, shell, shown

NO_KEY = "no flag takes the key: set IMAGE2_API_KEY in the environment"
KEY_FLAG = re.compile(r"k|(.*-)?(api-?key|key|token|secret|bearer|auth|authorization|password|credentials?)")
KEY = re.compile(r"(?<![A-Za-z0-9])(?:[spr]k[-_][\w-]{8,}|(?:key|api)[-_](?=[\w-]*[0-9])[\w-]{12,}|eyJ[\w.-]{16,})"
                 r"|(?<=Bearer )\S+|(?<=API_KEY=)\S+"
                 r"|(?<![\w./-])(?:(?=[\w+=-]*[0-9])(?=[\w+=-]*[A-Z])(?=[\w+=-]*[a-z])[\w+=-]{20,}"
                 r"|(?=[a-zA-Z]*[0-9])[0-9A-Za-z]{32,})(?![\w./-])")
PICTURE = re.compile(r"(?i)https?://\S+|\S+\.(png|jpe?g|webp|gif|avif|heic|tiff?|bmp|svg)")
SWITCH = re.compile("(?i)true|false|yes|no|on|off|1|0")
LONGEST_COMMAND = 300
VERBS = {
    **dict.fromkeys(("create", "gen", "image", "draw", "make", "edit", "order", "run"), "generate"),
    **dict.fromkeys(("resume", "poll", "get", "download", "fetch", "continue"), "wait"),
    **dict.fromkeys(("list", "ls", "history", "show", "task", "tasks"), "status"),
    **dict.fromkeys(("doctor", "ping", "test", "verify"), "check"), "serve": "sandbox", "bulk": "batch"}
# name without dashes -> the flag it stands for (it takes the value), or what to do instead
OTHERS = {
    **{name: field.flag for field in FIELDS for name in field.guesses}, **dict.fromkeys(FURTHER, "--set"),
    **dict.fromkeys(("file", "output-file", "outfile", "filename", "save", "save-as", "output-path", "dest", "destination",
                     "output-dir", "output-folder", "outdir", "out", "output", "out-dir", "o", "dir", "folder", "path",
                     "name", "f"), "--out"),
    **dict.fromkeys(("prompt-path", "from-file", "prompts", "input-file"), "--prompt-file"),
    **dict.fromkeys(("max-wait", "time-limit", "t"), "--timeout"), **dict.fromkeys(("interval", "poll"), "--poll-interval"),
    **dict.fromkeys(("async", "submit-only"), "--no-wait"), "limit": "--max-images", "m": "--model", "s": "--size",
    **dict.fromkeys(("parallel", "workers", "jobs", "threads", "j"), "--concurrency"),
    **dict.fromkeys(("test", "mock", "simulate", "fake"), "--sandbox"), "debug": "--verbose", "preview": "--dry-run",
    **dict.fromkeys(("url-only", "skip-download"), "--no-download"), "replace": "--overwrite", "again": "--new",
    "width": "type --size {}xHEIGHT", "height": "type --size WIDTHx{}", "format": "type --set output_format={}",
    "transparent": "type --set background=transparent", "hd": "type --set quality=high",
    "resume": "leave it out, `wait` goes on with a task", "stream": "leave it out, nothing is streamed",
    **dict.fromkeys(("json", "response-format"), "leave it out, the answer is always JSON"),
    **dict.fromkeys(("quiet", "silent"), "leave it out, stdout holds the answer alone"),
    **dict.fromkeys(("yes", "y", "non-interactive"), "leave it out, nothing is asked"),
    **dict.fromkeys(("new", "retry-failed"), "this verb never orders"),
    **dict.fromkeys(("wait", "download"), "leave it out, it does so by itself"),
    **dict.fromkeys(("retry", "retries", "max-retries"), "leave it out, what is safe to send again is sent again"),
    "mask": "the page documents no mask: say in the prompt what may change, or try --set mask=URL",
    "force": "type --overwrite to replace files, or --new to order (and pay) again",
    **dict.fromkeys(("base-url", "endpoint", "url", "host", "api-base"), "set IMAGE2_BASE_URL in the environment"),
}
# what a verb takes without a flag
WORDS = {"batch": ("file", "f", "input", "input-file", "prompts", "prompt-file"), "gallery": ("out", "o", "folder", "dir"),
         **dict.fromkeys(("wait", "status"), ("task", "task-id", "id"))}


def masked(text: str) -> str:
    """The text without what looks like a key."""
    return KEY.sub(WITHHELD, text)


def is_flag(word: str) -> bool:
    """Would anybody read this word as a flag? `-`, `-5` and `-5 degrees outside` are none."""
    return bool(re.match(r"[-–—]+[^\s=–—-][^\s=]*(=|$)", word)) and not re.fullmatch(r"-\d+(\.\d+)?", word)


def without_verb(argv: list[str], verbs: list[str]) -> str:
    """What is said to a command that names no verb."""
    names = f"Name a verb: {', '.join(verbs)}."
    word = next((word for word in argv if not is_flag(word)), "")
    if word.lower() in (*VERBS, *verbs):
        return f"{names} {shown(word)} is none: type `image2.py {VERBS.get(word.lower(), word.lower())}`."
    if " " in word:
        return f"{names} For a picture type `{_command('generate', [word])}`."
    return f"{names} {f'{shown(masked(word))} is none. ' if word else ''}Try `image2.py generate --help`."


def read(verb: str, before: list[str], behind: list[str], parser: argparse.ArgumentParser) -> Line:
    """The words of a command, sorted. `before`: those that stand before the verb, where none belongs."""
    takes_value = {name: action.nargs != 0 for name, action in parser._option_string_actions.items()}
    line = Line(verb, [*before, *behind], takes_value)
    places = parser._get_positional_actions()
    line.sort()
    if places and not line.words:
        line.words = line.perhaps[-1:]
    if verb == "generate":
        line.look_at_prompt()
    elif not any(place.nargs == "*" for place in places) and len(line.words) > len(places):
        takes = f"takes one {places[0].metavar}" if places else "takes no further word"
        line.mistakes.append(f"{verb} {takes}: {shown(line.words.pop(len(places)))} is one too many")
        del line.words[len(places):]
    if before:
        flag = before[0].partition("=")[0][:60]
        line.mistakes.insert(0, f"put {flag} after the verb: {_command(verb, [*line.words, *line.known])}")
    line.mistakes = list(dict.fromkeys(line.mistakes))
    return line


class Line:
    """The words of a command in one pass: flags and values as argparse takes them, words that are none, and the mistakes.

    `takes_value` has every spelling of every flag of the verb.
    """

    def __init__(self, verb: str, words: list[str], takes_value: dict[str, bool]) -> None:
        self.verb, self.rest, self.takes_value = verb, words, takes_value
        self.known: list[str] = []
        self.words: list[str] = []
        self.mistakes: list[str] = []
        self.perhaps: list[str] = []  # words behind flags that nobody knows: their values, or the word of the command

    def sort(self) -> None:
        while self.rest:
            word = self.rest.pop(0)
            if word == "--":
                self.words += self.rest
                break
            if is_flag(word):
                self._flag(word)
            else:
                self.words.append(word)

    def look_at_prompt(self) -> None:
        """The one word that should be the prompt: quoted, and no file's name."""
        files = [word for word in self.words if PICTURE.fullmatch(word)]
        self.words = [word for word in self.words if word not in files]
        for word in files:
            name = _quoted(word)
            self.mistakes.append(f"{name} is no prompt: repeat --image for each file (--image {name}), or type --out {name} "
                                 "to call the result so")
        if len(self.words) > 1:
            self.words = [" ".join(self.words).strip("'\"")]
            self.mistakes.append(f"quote the prompt: {_command(self.verb, [*self.words, *self.known])}")
        for word in self.words:
            path = word[word.startswith("@"):]
            if path != "-" and os.path.isfile(path):
                self.mistakes.append(f"{shown(word)} is the name of a file: type --prompt-file {_quoted(path)}, or --prompt "
                                     "for these very words")

    def _flag(self, word: str) -> None:
        name, equals, given = word.partition("=")
        value = given if equals else None
        bare = re.sub("[_–—]", "-", name).strip("-").lower()
        if name in self.takes_value:
            self._known(name, value)
        elif re.fullmatch(r"-n\d+|-vv+", word):
            self.known.append(word)
        elif KEY_FLAG.fullmatch(bare):
            self._value(value)
            self.mistakes.append(NO_KEY)
        elif bare in WORDS.get(self.verb, ()):
            value = self._value(value)
            self.words += [value] if value else []
            self.mistakes.append(f"no flag {name}: type `{_command(self.verb, [value or 'WORD'])}`")
        elif f"--{bare}" in self.takes_value:  # --prompt_file, -size, —size, --OUT
            self._guess(name, bare, f"--{bare}", value)
        elif bare in OTHERS:
            self._guess(name, bare, OTHERS[bare], value)
        else:
            near = difflib.get_close_matches(f"--{bare}", list(self.takes_value), 1, 0.75)
            self._perhaps(value)
            self.mistakes.append(f"{self.verb} has no flag {name[:60]}{f': did you mean {near[0]}?' if near else ''}")

    def _known(self, name: str, value: Optional[str]) -> None:
        if self.takes_value[name]:
            value = self._value(value)
            if value is None:
                self.mistakes.append(f"{name} needs a value")
            else:
                self.known += [f"{name}={value}"] if value.startswith("-") else [name, value]
            return
        if value is None and self.rest and SWITCH.fullmatch(self.rest[0]):
            value = self.rest.pop(0)
        if value is not None:
            self.mistakes.append(f"{name} takes no value: leave {shown(value, 20)} out")
        self.known.append(name)

    def _guess(self, name: str, bare: str, target: str, value: Optional[str]) -> None:
        """One mistake: what was typed, and what to type, with its value."""
        name = name[:60]
        if not target.startswith("--"):
            self.mistakes.append(f"no flag {name}: {target.format(self._perhaps(value) or 'VALUE')}")
        elif target not in self.takes_value:
            self._perhaps(value)
            self.mistakes.append(f"{self.verb} has no flag {name}")
        elif not self.takes_value[target]:
            self._perhaps(value)
            self.mistakes.append(f"no flag {name}: type {target}")
        else:
            value = self._value(value) or "VALUE"
            if target == "--size" and bare != "size":
                value = size_meant(value) or "1024x1024"
            elif bare in FURTHER:
                value = f"{bare.replace('-', '_')}={value}"
            elif bare == "images" and value.isdigit():
                target = "--n"
            self.mistakes.append(f"no flag {name}: type {target} {_quoted(value)}")

    def _value(self, value: Optional[str]) -> Optional[str]:
        """The value of a flag that takes one: behind its `=`, or the next word where that is no flag."""
        return self.rest.pop(0) if value is None and self.rest and not is_flag(self.rest[0]) else value

    def _perhaps(self, value: Optional[str]) -> Optional[str]:
        """The same for a flag of which nobody knows whether it takes one."""
        found = self._value(value)
        self.perhaps += [found] if value is None and found is not None else []
        return found


def _quoted(text: str) -> str:
    return shell([text]) if len(text) <= 100 else shown(text, 100)


def _command(verb: str, words: list[str]) -> str:
    text = masked(shell(["image2.py", verb, *words]))
    return text if len(text) <= LONGEST_COMMAND else text[:LONGEST_COMMAND] + "…"
