"""argv -> one verb -> one JSON object -> exit status. The only print, the only exit, the only signal handler.

Whatever happens (a usage error, a signal, a missing package, a bug of ours), stdout gets exactly one JSON
object, without the key; stderr is for people.
"""

from __future__ import annotations

import os
import signal
import sys

from . import answer
from .cli import arguments
from .clock import Clock, Interrupted
from .errors import Image2Error

OLDEST = (3, 10)
ISSUES = "https://github.com/ichizi/image2-skills/issues"


def main():
    """Run the command line of this process and exit."""
    clock = Clock()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), clock.stop)
    sys.exit(_Main(sys.argv[1:], os.path.abspath(sys.argv[0]), clock).run())


class _Main:
    def __init__(self, argv, script, clock):
        self.argv, self.script, self.clock = argv, script, clock
        self.verb = None  # the run.Run, once the line is understood
        self._secrets = None  # what no text may show; known even where a run ends before it needs the key

    def run(self) -> int:
        try:
            told, exit_status = self._run()
            line = self._line(told)
        except SystemExit as end:  # --help, --version, or a child that answered in our place
            self._warn_of_age()
            _flush()
            return end.code
        except Exception as bug:  # in the making of the answer itself
            error = self._bug(bug)
            line, exit_status = self._line(answer.of_error(error)), error.exit_status
        self._print(line)
        serving = self.verb and self.verb.serving
        if serving and not exit_status:
            try:
                self.clock.sleep(float("inf"))
            except Interrupted:
                serving.stop()
        return exit_status

    def _run(self):
        try:
            options, mistakes = arguments.parse(self.argv)
            from .cli import commands as verbs
            from .cli.run import Run

            self.verb = Run(options, mistakes, self.clock, self.script, self._write, _is_terminal(sys.stderr))
            return verbs.go(self.verb)
        except Image2Error as error:
            return self._failed(error)
        except Interrupted as signalled:
            return self._failed(self._interrupted(signalled.signum))
        except SystemExit:
            raise
        except BaseException as bug:
            return self._failed(self._bug(bug))

    def _failed(self, error):
        if error.code == "usage" and sys.version_info < OLDEST:
            error.message += " " + _age()
        return self.verb.failed(error) if self.verb else (answer.of_error(error), error.exit_status)

    def _interrupted(self, signum) -> Image2Error:
        charged = self.verb.charged if self.verb else "no"
        message = {"no": "Stopped before anything was ordered.",
                   "maybe": "Stopped while the order was being sent: it may have been accepted and charged. Do not repeat "
                            "it unasked; tell the user.",
                   "yes": "Stopped; the task goes on at the service. Run `next` to get its pictures."}[charged]
        return Image2Error("interrupted" if signum == signal.SIGINT else "terminated", message, charged=charged)

    def _bug(self, bug) -> Image2Error:
        if self.verb and self.verb.options.verbose:
            import traceback

            self._write("".join(traceback.format_exception(type(bug), bug, bug.__traceback__)))
        # neither the exception's text nor the frames' values: they may hold anything, the key too
        at = bug.__traceback__
        while at and at.tb_next:
            at = at.tb_next
        where = "%s:%d" % (os.path.basename(at.tb_frame.f_code.co_filename), at.tb_lineno) if at else "?"
        charged = self.verb.charged if self.verb else "no"
        return Image2Error("internal", "A bug in this tool (%s at %s). Please report it: %s"
                           % (type(bug).__name__, where, ISSUES), charged=charged)

    def _line(self, told: dict) -> bytes:
        return answer.text(answer.changed(told, self._without_key))

    def _print(self, line: bytes):
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):  # closed: nobody listens, and the exit status still speaks
            sys.stdout = None

    def _write(self, text: str):
        try:
            sys.stderr.write(self._without_key(text))
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass

    def _without_key(self, text: str) -> str:
        if self._secrets is None:
            from .machine.settings import known_secrets

            self._secrets = known_secrets()
        for secret in self._secrets:
            text = text.replace(secret, "(withheld)")
            if "%" in text:
                from .service.task import encoded

                text = encoded(secret).sub("(withheld)", text)
        return text

    def _warn_of_age(self):
        if sys.version_info < OLDEST:
            self._write("image2: %s\n" % _age())


def _age() -> str:
    return "Python 3.10 or newer is needed to run; this is %d.%d." % sys.version_info[:2]


def _flush():
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # closed, as by `--help | head`: Python's end must not try again
        sys.stdout = None


def _is_terminal(stream) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False
