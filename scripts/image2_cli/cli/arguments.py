"""The command line: verbs, flags, their help. Texts in, a namespace or one usage error out.

Touches nothing. Flags stay texts here; `order.fields` and the verbs judge them, so that all mistakes of an order come
in one answer instead of one a run.
"""

from __future__ import annotations

import argparse

from .. import VERSION
from ..errors import Image2Error

EXITS = """\
exit: 0 ok, 1 bug, 2 usage, 3 rejected, 4 auth, 5 unavailable, 6 failed, 7 partial, 8 pending (run `next`),
      9 unknown (do not repeat), 10 not saved (run `next`), 130/143 interrupted (run `next`)"""
TIMEOUT_S, MAX_TIMEOUT_S = 100.0, 86400.0


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog):
        super().__init__(prog, max_help_position=28, width=100)  # asking for the terminal's costs 2 ms of every start


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        # typing half a flag would spend money on a guess
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **options)

    def error(self, message):
        raise Image2Error("usage", "%s. See `%s --help`." % (message[:1].upper() + message[1:], self.prog))


def parse(argv: list):
    """argv (without the program) -> (namespace with `verb`, list of mistakes). `--help` ends in SystemExit(0).

    Raises `Image2Error` usage where the line cannot be read at all.
    """
    parser = _parser(argv)
    found, unknown = parser.parse_known_args(argv)
    if not found.verb:
        raise Image2Error("usage", "Name a verb: %s. Try `image2.py generate --help`." % ", ".join(VERBS))
    return found, ["%s is no flag or argument of %s" % (word, found.verb) for word in unknown]


def seconds(text, flag: str, mistakes: list, most: float = MAX_TIMEOUT_S):
    """A flag's number of seconds; a mistake is added to `mistakes` and None returned."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 < value <= most:
        return value
    mistakes.append("%s %s must be a number of seconds above 0, at most %d" % (flag, text, most))
    return None


def _parser(argv):
    parser = _Parser(prog="image2.py", description="Generate images with the image2 API: one order, one payment, "
                     "one JSON answer on stdout.", epilog="image2.py VERB --help tells more.\n" + EXITS)
    parser.add_argument("--version", action="version", version="image2.py " + VERSION)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, (add_flags, summary, example) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".",
                                epilog="example: image2.py %s %s\n%s" % (name, example, EXITS))
        if name in argv:  # the flags of the other verbs would cost every start a few milliseconds
            add_flags(verb)
    return parser


def _order(parser):
    """What `generate` and every line of `batch` have in common."""
    parser.add_argument("--image", action="append", metavar="URL_OR_PATH", help="reference image; repeatable")
    parser.add_argument("--size", metavar="WxH", help="such as 1024x1024, or auto")
    parser.add_argument("--n", metavar="1..10", help="how many images (default 1)")
    parser.add_argument("--model", help="default gpt-image-2")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="another body field; value as JSON or text")
    parser.add_argument("--overwrite", action="store_true", help="replace files instead of numbering")
    parser.add_argument("--dry-run", action="store_true", help="show request and file names; nothing is sent")


def _generate(parser):
    parser.add_argument("prompt_word", metavar="PROMPT", nargs="?", help="what the picture shows")
    parser.add_argument("-p", "--prompt", help="the prompt as a flag")
    parser.add_argument("--prompt-file", metavar="FILE", help="the prompt from a file (- is stdin)")
    _order(parser)
    parser.add_argument("--no-wait", action="store_true", help="submit only")
    parser.add_argument("--no-download", action="store_true", help="URLs only, no files")
    parser.add_argument("--sync", action="store_true", help="the synchronous endpoint (cannot be continued if killed)")
    parser.add_argument("--new", action="store_true", help="order again although the same order is unfinished")
    _everywhere(parser, out=True, waits=True)


def _batch(parser):
    parser.add_argument("file", metavar="FILE",
                        help='a prompt a line, or JSONL such as {"prompt": "a fox", "name": "fox.png"}; - is stdin')
    _order(parser)
    parser.add_argument("--max-images", default="50", metavar="N", help="refuse a batch of more images (default 50)")
    parser.add_argument("--concurrency", default="8", metavar="N", help="orders in flight (default 8)")
    parser.add_argument("--retry-failed", action="store_true", help="order failed lines again")
    parser.add_argument("--new", action="store_true", help="order failed lines and those of unknown fate again")
    _everywhere(parser, out=True, waits=True)


def _wait(parser):
    parser.add_argument("task_ids", metavar="TASK_ID", nargs="*", help="none: all unfinished ones of the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace files instead of numbering")
    parser.add_argument("--no-download", action="store_true", help="URLs only, no files")
    _everywhere(parser, out=True, waits=True)


def _status(parser):
    parser.add_argument("task_id", metavar="TASK_ID")
    _everywhere(parser, out=True)


def _check(parser):
    _everywhere(parser, out=True)


def _gallery(parser):
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="default image2-output")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell more on stderr")


def _sandbox(parser):
    parser.add_argument("--port", default="0", help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--seconds", default="4", help="how long a task takes (default 4)")
    parser.add_argument("-v", "--verbose", action="store_true", help="log each request to stderr")


def _everywhere(parser, out=False, waits=False):
    if out:
        parser.add_argument("-o", "--out", "--output", "--out-dir", dest="out", metavar="PATH",
                            help="file (.png .jpg .webp...) or folder (default image2-output)")
    if waits:
        parser.add_argument("--timeout", default="%g" % TIMEOUT_S, metavar="SECONDS",
                            help="how long to wait in all (default %g)" % TIMEOUT_S)
        parser.add_argument("--poll-interval", metavar="SECONDS", help="fixed, instead of the schedule (debugging)")
    parser.add_argument("--sandbox", action="store_true", help="use a stand-in on this machine: free placeholders")
    parser.add_argument("-v", "--verbose", action="store_true", help="log each HTTP exchange to stderr")


VERBS = {
    "generate": (_generate, "order pictures, wait, download, report",
                 '"a red fox in snow" --size 1536x1024 --out fox.png'),
    "batch": (_batch, "the same for many orders; lines that are done are never paid again",
              "prompts.txt --size 1024x1024 --out icons"),
    "wait": (_wait, "go on with tasks that exist: wait, download; never orders", "--out image2-output"),
    "status": (_status, "one look at a task; no waiting, no files", "TASK_ID"),
    "check": (_check, "is everything ready? costs nothing", ""),
    "gallery": (_gallery, "one HTML page of a folder's pictures and prompts", "image2-output"),
    "sandbox": (_sandbox, "serve the API on this machine with placeholder pictures, for nothing", "--port 8484"),
}
