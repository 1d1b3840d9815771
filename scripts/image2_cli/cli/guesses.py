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


def _by_name(table: dict[str, str]) -> dict[str, str]:
    """What is meant: the names that people type for it, turned round."""
    return {name: meant for meant, names in table.items() for name in names.split()}


VERBS = _by_name({
    "generate": "create gen image draw make edit order run", "wait": "resume poll get download fetch continue",
    "status": "list ls history show task tasks", "check": "doctor ping test verify", "sandbox": "serve", "batch": "bulk"})
# name without dashes -> the flag it stands for (it takes the value), or what to do instead
OTHERS = {**{name: field.flag for field in FIELDS for name in field.guesses}, **dict.fromkeys(FURTHER, "--set"), **_by_name({
    "--out": "file output-file outfile filename save save-as output-path dest destination output-dir output-folder outdir "
             "out output out-dir o dir folder path name f",
    "--prompt-file": "prompt-path from-file prompts input-file", "--timeout": "max-wait time-limit t",
    "--poll-interval": "interval poll", "--no-wait": "async submit-only", "--no-download": "url-only skip-download",
    "--concurrency": "parallel workers jobs threads j", "--sandbox": "test mock simulate fake", "--max-images": "limit",
    "--model": "m", "--size": "s", "--verbose": "debug", "--dry-run": "preview", "--overwrite": "replace", "--new": "again",
    "type --size {}xHEIGHT": "width", "type --size WIDTHx{}": "height", "type --set output_format={}": "format",
    "type --set background=transparent": "transparent", "type --set quality=high": "hd",
    "type --overwrite to replace files, or --new to order (and pay) again": "force",
    "leave it out, `wait` goes on with a task": "resume", "leave it out, nothing is streamed": "stream",
    "leave it out, the answer is always JSON": "json response-format", "leave it out, it does so by itself": "wait download",
    "leave it out, stdout holds the answer alone": "quiet silent", "leave it out, nothing is asked": "yes y non-interactive",
    "leave it out, what is safe to send again is sent again": "retry retries max-retries",
    "this verb never orders": "new retry-failed",
    "set IMAGE2_BASE_URL in the environment": "base-url endpoint url host api-base",
    "the page documents no mask: say in the prompt what may change, or try --set mask=URL": "mask",
})}
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
    line = Line(verb, [*before, *behind], parser)
    places = parser._get_positional_actions()
    if places and not line.words:
        line.words = line.perhaps[-1:]
    if verb == "generate":
        line.look_at_prompt()
    elif not any(place.nargs == "*" for place in places) and len(line.words) > len(places):
        takes = f"takes one {places[0].metavar}" if places else "takes no further word"
        line.mistakes.append(f"{verb} {takes}: {shown(line.words[len(places)])} is one too many")
        del line.words[len(places):]
    if before:
        flag = before[0].partition("=")[0][:60]
        line.mistakes.insert(0, f"put {flag} after the verb: {_command(verb, [*line.words, *line.known])}")
    line.mistakes = list(dict.fromkeys(line.mistakes))
    return line


class Line:
    """The words of a command in one pass: flags and values as argparse takes them, words that are none, and the mistakes."""

    def __init__(self, verb: str, words: list[str], parser: argparse.ArgumentParser) -> None:
        self.verb, self.rest = verb, words
        self.takes_value = {name: action.nargs != 0 for name, action in parser._option_string_actions.items()}
        self.known: list[str] = []
        self.words: list[str] = []
        self.mistakes: list[str] = []
        self.perhaps: list[str] = []  # words behind flags that nobody knows: their values, or the word of the command
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
        else:
            self.mistakes.append(self._meant(name[:60], bare, value))

    def _known(self, name: str, value: Optional[str]) -> None:
        if self.takes_value[name]:
            value = self._value(value)
            if value in (None, "--"):
                self.mistakes.append(f"{name} needs a value")
            else:
                self.known += [f"{name}={value}"] if value.startswith("-") else [name, value]
            return
        if value is None and self.rest and SWITCH.fullmatch(self.rest[0]):
            value = self.rest.pop(0)
        if value is not None:
            self.mistakes.append(f"{name} takes no value: leave {shown(value, 20)} out")
        self.known.append(name)

    def _meant(self, name: str, bare: str, value: Optional[str]) -> str:
        """One mistake: what was typed, and what to type, with its value."""
        own = f"--{bare}"  # --prompt_file, -size, —size, --OUT
        target = own if own in self.takes_value else OTHERS.get(bare)
        if target and self.takes_value.get(target):
            value = self._value(value) or "VALUE"
            if target == "--size" and bare != "size":
                value = size_meant(value) or "1024x1024"
            elif bare in FURTHER:
                value = f"{bare.replace('-', '_')}={value}"
            elif bare == "images" and value.isdigit():
                target = "--n"
            return f"no flag {name}: type {target} {_quoted(value)}"
        value = self._value(value, is_its_own=False)
        if target in self.takes_value:
            return f"no flag {name}: type {target}"
        if target and not target.startswith("--"):
            return f"no flag {name}: {target.format(value or 'VALUE')}"
        near = [] if target else difflib.get_close_matches(own, list(self.takes_value), 1, 0.75)
        return f"{self.verb} has no flag {name}{f': did you mean {near[0]}?' if near else ''}"

    def _value(self, value: Optional[str], is_its_own: bool = True) -> Optional[str]:
        """The value of a flag: behind its `=`, or the next word where that is no flag, and perhaps not its own either."""
        if value is not None or not self.rest or is_flag(self.rest[0]):
            return value
        if not is_its_own:
            self.perhaps.append(self.rest[0])
        return self.rest.pop(0)


def _quoted(text: str) -> str:
    return shell([text]) if len(text) <= 100 else shown(text, 100)


def _command(verb: str, words: list[str]) -> str:
    text = masked(shell(["image2.py", verb, *words]))
    return text if len(text) <= LONGEST_COMMAND else text[:LONGEST_COMMAND] + "…"
