"""The command line: verbs, flags, their help. Words in, a namespace and the mistakes out.

Values stay texts here; `order/fields` and the verbs judge them, so that all mistakes of an order come in one answer. The
flags of an order come from the table of order fields. What is not understood goes to `guesses`, which says what to type.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
from typing import Any, Callable, NoReturn, Optional

from ..errors import Image2Error
from ..order.fields import FIELDS
from ..text import shown

VERSION = "2.0.0"
EXITS = """\
exit: 0 ok, 1 bug, 2 usage, 3 rejected, 4 auth, 5 unavailable, 6 failed, 7 partial,
      8 pending (run `next`), 9 unknown (do not repeat), 10 not saved (run `next`),
      130/143 interrupted (run `next`)"""
TIMEOUT_S, MAX_TIMEOUT_S = 100.0, 86_400.0
ODD_WORD = r"[–—]|-[A-Za-z]{2}|-.*=--$"  # argparse reads `-out f.png` as `-o ut`, and `--out=--` as no --out
ODD_PROMPT = r"@\S+|\S+[.:]\S+"  # may be meant as a file or an address


class _Once(argparse.Action):
    """A flag that takes one value: where it is given twice, nobody knows which is meant."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any,
                 name: Optional[str] = None) -> None:
        if getattr(namespace, self.dest) is not self.default:
            namespace.twice = [*getattr(namespace, "twice", []), f"{name} is given twice: it takes one value"]
        setattr(namespace, self.dest, value)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # asking for the terminal's width costs 2 ms of every start
        formatter = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=30, width=100)
        # typing half a flag would spend money on a guess
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)
        self.register("action", None, _Once)  # what an action is where none is named

    def error(self, message: str) -> NoReturn:
        raise Image2Error("usage", f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """argv (without the program) -> a namespace with `verb`, and the mistakes, each a sentence without its dot.

    `--help` and `--version` end in SystemExit(0). Raises `Image2Error` usage where the line cannot be read at all.
    """
    verb = next((word for word in argv if word in VERBS), None)
    if verb is None or "--version" in argv:
        _main_parser().parse_args([word for word in argv if word in ("-h", "--help", "--version")])
    found = _understood(argv) if argv[:1] == [verb] else None
    return (found, _contradictions(found)) if found else _guessed(verb, argv)


def seconds(text: str, flag: str, most: float = MAX_TIMEOUT_S) -> float:
    """A flag's number of seconds. Raises ValueError with the mistake."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value <= most:
        return value
    raise ValueError(f"{flag} {shown(text, 20)} must be a number of seconds above 0, at most {most:.0f}")


def _understood(argv: list[str]) -> Optional[argparse.Namespace]:
    """What the words behind a verb say, or None where they have to be guessed at."""
    if any(re.match(ODD_WORD, word) for word in argv):
        return None
    try:
        found = _verb_parser(argv[0]).parse_args(argv[1:])
    except Image2Error:
        return None
    prompt = getattr(found, "prompt_word", None) or ""
    return None if re.fullmatch(ODD_PROMPT, prompt) or os.path.isfile(prompt) else found


def _guessed(verb: Optional[str], argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    from . import guesses

    if verb is None or not (argv[0] == verb or guesses.is_flag(argv[0])):
        raise Image2Error("usage", guesses.without_verb(argv, list(VERBS)))
    at = argv.index(verb)
    parser = _verb_parser(verb)
    line = guesses.read(verb, argv[:at], argv[at + 1:], parser)
    try:
        found = parser.parse_args([*line.known, "--", *line.words] if line.words else line.known)
    except Image2Error as error:  # FILE is missing
        raise Image2Error("usage", guesses.masked(". ".join([*line.mistakes, error.message]))) from None
    return found, [guesses.masked(mistake) for mistake in (*line.mistakes, *_contradictions(found))]


def _contradictions(found: argparse.Namespace) -> list[str]:
    mistakes = list(getattr(found, "twice", []))
    prompts = [name for name in ("prompt_word", "prompt", "prompt_file") if getattr(found, name, None) is not None]
    if len(prompts) > 1:
        mistakes.append(f"the prompt is given {len(prompts)} times: use one of PROMPT, --prompt, --prompt-file")
    for one, other in (("sync", "no_wait"), ("no_download", "overwrite"), ("no_wait", "no_download")):
        if getattr(found, one, False) and getattr(found, other, False):
            mistakes.append(f"--{one.replace('_', '-')} and --{other.replace('_', '-')} contradict each other")
    return mistakes


def _main_parser() -> _Parser:
    parser = _Parser(prog="image2.py", description="Generate images with the image2 API: one order, one payment, "
                     "one JSON answer on stdout.", epilog=f"image2.py VERB --help tells more.\n{EXITS}")
    parser.add_argument("--version", action="version", version=f"image2.py {VERSION}")
    verbs = parser.add_subparsers(metavar="VERB")
    for name, (_add, summary, _example) in VERBS.items():
        verbs.add_parser(name, help=summary)
    return parser


def _verb_parser(verb: str) -> _Parser:
    add, summary, example = VERBS[verb]
    parser = _Parser(prog=f"image2.py {verb}", description=f"{summary[0].upper()}{summary[1:]}.",
                     epilog=f"example: image2.py {verb} {example}".rstrip() + f"\n{EXITS}")
    parser.set_defaults(verb=verb, out=None, sandbox=False)
    add(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="a line on stderr for each HTTP exchange")
    return parser


def _order(parser: _Parser, in_batch: bool) -> None:
    """What `generate` and every line of `batch` have in common: the table's flags."""
    for field in FIELDS:
        if field.name != "prompt" or not in_batch:
            parser.add_argument(*filter(None, (field.short, field.flag)), dest=field.name, metavar=field.metavar,
                                action="append" if field.repeatable else _Once, help=field.help)
    parser.add_argument("--overwrite", action="store_true", help="replace files instead of numbering")
    parser.add_argument("--dry-run", action="store_true", help="show request and file names; nothing is sent")


def _generate(parser: _Parser) -> None:
    parser.add_argument("prompt_word", metavar="PROMPT", nargs="?", help="what the picture shows; - is stdin")
    parser.add_argument("--prompt-file", metavar="FILE", help="the prompt from a file; - is stdin")
    _order(parser, in_batch=False)
    parser.add_argument("--no-wait", action="store_true", help="submit only")
    parser.add_argument("--no-download", action="store_true", help="URLs only, no files")
    parser.add_argument("--sync", action="store_true", help="the synchronous endpoint (cannot be continued if killed)")
    parser.add_argument("--new", action="store_true", help="order (and pay) again, whatever became of the same order before")
    _common(parser, waits=True)


def _batch(parser: _Parser) -> None:
    parser.add_argument("file", metavar="FILE",
                        help='a prompt a line, or JSONL such as {"prompt": "a fox", "name": "fox.png"}; - is stdin')
    _order(parser, in_batch=True)
    parser.add_argument("--directory", metavar="FOLDER", help="absolute; where relative paths in FILE start")
    parser.add_argument("--max-images", default="50", metavar="N", help="refuse a batch of more images (default 50)")
    parser.add_argument("--concurrency", default="8", metavar="N", help="orders in flight (default 8)")
    parser.add_argument("--retry-failed", action="store_true", help="order failed lines again")
    parser.add_argument("--new", action="store_true", help="order failed lines and those of unknown fate again")
    _common(parser, waits=True)


def _wait(parser: _Parser) -> None:
    parser.add_argument("task_ids", metavar="TASK_ID", nargs="*", help="none: all unfinished ones of the folder")
    parser.add_argument("--directory", metavar="FOLDER", help="absolute; where to look for the tasks")
    parser.add_argument("--overwrite", action="store_true", help="replace files instead of numbering")
    parser.add_argument("--no-download", action="store_true", help="URLs only, no files")
    _common(parser, waits=True)


def _status(parser: _Parser) -> None:
    parser.add_argument("task_id", metavar="TASK_ID", nargs="?", help="none: what the records say, offline")
    _common(parser)


def _gallery(parser: _Parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="default image2-output")


def _sandbox(parser: _Parser) -> None:
    parser.add_argument("--port", default="0", help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--seconds", default="4", help="how long a task takes (default 4)")


def _common(parser: _Parser, waits: bool = False) -> None:
    parser.add_argument("-o", "--out", "--output", "--out-dir", dest="out", metavar="PATH",
                        help="file (.png .jpg .webp...) or folder (default image2-output)")
    parser.add_argument("--timeout", default=f"{TIMEOUT_S:g}", metavar="SECONDS",
                        help=f"how long to wait in all (default {TIMEOUT_S:g})")
    if waits:
        parser.add_argument("--poll-interval", metavar="SECONDS", help="fixed, instead of the schedule (debugging)")
    parser.add_argument("--sandbox", action="store_true", help="use a stand-in on this machine: free placeholders")


# verb: its flags, summary, example
VERBS: dict[str, tuple[Callable[[_Parser], None], str, str]] = {
    "generate": (_generate, "order pictures, wait, download, report", '"a red fox in snow" --size 1536x1024 --out fox.png'),
    "batch": (_batch, "the same for many orders; lines that are done are never paid again",
              "prompts.txt --size 1024x1024 --out icons"),
    "wait": (_wait, "go on with tasks that exist: wait, download; never orders", "--out image2-output"),
    "status": (_status, "one look at a task, or at what the records say; no waiting", "--out image2-output"),
    "check": (_common, "is everything ready? costs nothing", ""),
    "gallery": (_gallery, "one HTML page of a folder's pictures and prompts", "image2-output"),
    "sandbox": (_sandbox, "serve the API on this machine with placeholder pictures, for nothing", "--port 8484"),
}
