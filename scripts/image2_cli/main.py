"""argv -> one verb -> one JSON object -> exit status. The only print, the only exit, the only signal handler.

Whatever happens (a usage error, a signal, a missing package, a bug of ours), stdout gets exactly one JSON object, without
the key; stderr is for people. A stdout or stderr that nobody reads or that is closed holds nothing up.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import IO, TYPE_CHECKING, NoReturn, Optional

from .answer import Answer, line, of_error
from .clock import Clock, Interrupted
from .errors import Image2Error
from .text import changed, masked

if TYPE_CHECKING:
    import queue
    import threading

    from .cli.run import Run

ISSUES = "https://github.com/ichizi/image2-skills/issues"
TELL_S, PRINT_S = 0.3, 10.0  # how long what is left for people, and the answer, may take to be written at the end
STOPPED = {  # by what was accepted
    "no": "Stopped. Nothing was ordered.",
    "maybe": "Stopped while the order was being sent: it may have been accepted and charged. Do not repeat it unasked; tell "
             "the user.",
    "yes": "Stopped; the task goes on at the service. Run `next` to get its pictures.",
}


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    clock = Clock()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):  # of nohup
            signal.signal(number, clock.stop)
    sys.exit(Main(clock).run())


class Main:
    """One process. See above."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._run: Optional[Run] = None  # once the line is understood
        self._lines: Optional[queue.SimpleQueue[Optional[str]]] = None  # for people
        self._teller: Optional[threading.Thread] = None

    def run(self) -> int:
        """The exit status, once the answer is printed."""
        try:
            answer, exit_status = self._answer()
            data = self._data(answer)
        except SystemExit as end:  # --help, --version, or a child that answered in our place
            try:
                sys.stdout.flush()
            except OSError:  # closed, as by `--help | head`: Python's own end must not try again
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            except AttributeError:
                pass
            return end.code if isinstance(end.code, int) else 0
        except (ImportError, SyntaxError):
            raise  # the skill was not copied whole: the entry says so
        except Exception as bug:  # in the making of the answer itself
            error = self._bug(bug)
            data, exit_status = self._data(of_error(error)), error.exit_status
        self._finish_telling()
        self._print(data)
        serving = self._run.serving if self._run else None
        if serving and not exit_status:
            try:
                self._clock.sleep(float("inf"))
            except Interrupted:
                serving.stop()
        return exit_status

    def _answer(self) -> tuple[Answer, int]:
        try:
            from .cli.arguments import parse

            options, mistakes = parse(sys.argv[1:])
            from .cli.commands import go
            from .cli.run import Run

            script, is_terminal = os.path.abspath(sys.argv[0]), bool(sys.stderr and sys.stderr.isatty())
            self._run = Run(options, mistakes, self._clock, script, self._tell, is_terminal)
            return go(self._run)
        except Image2Error as error:
            return self._failed(error)
        except Interrupted as signalled:
            return self._failed(self._interrupted(signalled.signum))
        except BaseException as bug:
            if isinstance(bug, (SystemExit, SyntaxError)) or (
                    isinstance(bug, ImportError) and (bug.name or "").startswith("image2_cli")):
                raise
            return self._failed(self._bug(bug))

    def _failed(self, error: Image2Error) -> tuple[Answer, int]:
        return self._run.failed(error) if self._run else (of_error(error), error.exit_status)

    def _interrupted(self, signum: int) -> Image2Error:
        accepted, charged = (self._run.accepted, self._run.charged) if self._run else ("no", "no")
        code = "interrupted" if signum == signal.SIGINT else "terminated"
        return Image2Error(code, STOPPED[accepted], charged=charged)

    def _bug(self, bug: BaseException) -> Image2Error:
        import traceback

        if self._run and self._run.options.verbose:
            self._tell("".join(traceback.format_exception(type(bug), bug, bug.__traceback__)))
        # neither the exception's text nor the frames' values: they may hold anything, the key too
        at = traceback.extract_tb(bug.__traceback__)[-1]
        where = f"{os.path.basename(at.filename)}:{at.lineno}"
        return Image2Error("internal", f"A bug in this tool ({type(bug).__name__} at {where}). Please report it: {ISSUES}",
                           charged=self._run.charged if self._run else "no")

    def _data(self, answer: Answer) -> bytes:
        # each value by itself: of a key such as `{"error": …}`, what a failed command had printed, the JSON broke
        shown: Answer = changed(answer, lambda text: masked(text, self._secrets))
        return line(shown, is_indented=bool(sys.stdout and sys.stdout.isatty()))

    def _print(self, data: bytes) -> None:
        """By a thread, past Python's own buffers: a pipe that nobody reads would hold the end for ever.

        The end of the process does not wait for the thread either, but would for a text that is left in those buffers.
        """
        import threading

        printing = threading.Thread(target=_write_all, args=(sys.stdout, data), daemon=True)
        printing.start()
        printing.join(PRINT_S)

    def _tell(self, text: str) -> None:
        """A text for people, on stderr, by a thread: a pipe that nobody reads once held a paid order for ever, and waiting
        0.3 s for it kept the record of one from the disk that was accepted as a signal came."""
        import queue
        import threading

        if self._lines is None:
            self._lines = queue.SimpleQueue()
            self._teller = threading.Thread(target=_write_lines, args=(self._lines,), daemon=True)
            self._teller.start()
        self._lines.put(masked(text, self._secrets))

    def _finish_telling(self) -> None:
        if self._teller and self._lines:
            self._lines.put(None)
            self._teller.join(TELL_S)

    @functools.cached_property
    def _secrets(self) -> list[str]:
        """What no text may show, as it is and as a quoted text has it."""
        import json

        from .machine.settings import known_secrets

        secrets = known_secrets()
        return [*secrets, *(json.dumps(secret)[1:-1] for secret in secrets)]


def _write_lines(lines: queue.SimpleQueue[Optional[str]]) -> None:
    for text in iter(lines.get, None):
        _write_all(sys.stderr, text.encode("utf-8", "replace"))


def _write_all(stream: Optional[IO[str]], data: bytes) -> None:
    """Write to a stream's file. One that is closed or missing is nobody's who listens; the exit status still speaks."""
    try:
        while stream and data:
            data = data[os.write(stream.fileno(), data):]
    except (OSError, ValueError):
        pass
