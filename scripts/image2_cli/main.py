"""argv -> one verb -> one JSON object -> exit status. The only print, the only exit, the only signal handler.

Whatever happens (a usage error, a signal, a missing package, a bug of ours), stdout gets exactly one JSON object, without
the key; stderr is for people. A stdout or stderr that nobody reads or that is closed holds nothing up.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import IO, TYPE_CHECKING, Optional

from .answer import Answer, line, of_error
from .clock import Clock, Interrupted
from .errors import Image2Error
from .text import masked

if TYPE_CHECKING:
    import queue
    import threading

    from .cli.run import Run

ISSUES = "https://github.com/ichizi/image2-skills/issues"
FLUSH_S, PRINT_S = 0.3, 10.0  # for what is still to be written when a run ends


def main() -> None:
    """Run the command line of this process and exit."""
    clock = Clock()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):  # of nohup
            signal.signal(number, clock.stop)
    command = Main(sys.argv[1:], os.path.abspath(sys.argv[0]), clock)
    exit_status = command.run()
    if command.is_stuck:
        os._exit(exit_status)  # Python's own end would wait for a pipe that is full and that nobody reads
    sys.exit(exit_status)


class Main:
    """One process. See above."""

    def __init__(self, argv: list[str], script: str, clock: Clock) -> None:
        self._argv, self._script, self._clock = argv, script, clock
        self._run: Optional[Run] = None  # once the line is understood
        self._secrets: Optional[list[str]] = None  # what no text may show
        self._lines: Optional[queue.SimpleQueue[Optional[str]]] = None
        self._writer: Optional[threading.Thread] = None
        self.is_stuck = False  # somebody holds our stdout or stderr open and does not read it

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
        self._finish_writing()
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

            options, mistakes = parse(self._argv)
            from .cli.commands import go
            from .cli.run import Run

            self._run = Run(options, mistakes, self._clock, self._script, self._write, _is_terminal(sys.stderr))
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
        message = {"no": "Stopped. Nothing was ordered.",
                   "maybe": "Stopped while the order was being sent: it may have been accepted and charged. Do not repeat "
                            "it unasked; tell the user.",
                   "yes": "Stopped; the task goes on at the service. Run `next` to get its pictures."}[accepted]
        return Image2Error("interrupted" if signum == signal.SIGINT else "terminated", message, charged=charged)

    def _bug(self, bug: BaseException) -> Image2Error:
        if self._run and self._run.options.verbose:
            import traceback

            self._write("".join(traceback.format_exception(type(bug), bug, bug.__traceback__)))
        # neither the exception's text nor the frames' values: they may hold anything, the key too
        at = bug.__traceback__
        while at and at.tb_next:
            at = at.tb_next
        where = f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno}" if at else "?"
        return Image2Error("internal", f"A bug in this tool ({type(bug).__name__} at {where}). Please report it: {ISSUES}",
                           charged=self._run.charged if self._run else "no")

    def _data(self, answer: Answer) -> bytes:
        return self._without_key(line(answer, _is_terminal(sys.stdout)).decode("utf-8")).encode("utf-8")

    def _print(self, data: bytes) -> None:
        """In a thread, past Python's own buffers: a pipe that nobody reads would hold the end for ever."""
        import threading

        printing = threading.Thread(target=_write_all, args=(sys.stdout, data), daemon=True)
        printing.start()
        printing.join(PRINT_S)
        self.is_stuck = self.is_stuck or printing.is_alive()

    def _write(self, text: str) -> None:
        """A text for people, on stderr, by a thread: a pipe that nobody reads once held a paid order for ever."""
        import queue
        import threading

        if self._lines is None:
            self._lines = queue.SimpleQueue()
            self._writer = threading.Thread(target=self._write_lines, args=(self._lines,), daemon=True)
            self._writer.start()
        self._lines.put(self._without_key(text))

    @staticmethod
    def _write_lines(lines: queue.SimpleQueue[Optional[str]]) -> None:
        for text in iter(lines.get, None):
            _write_all(sys.stderr, text.encode("utf-8", "replace"))

    def _finish_writing(self) -> None:
        if self._writer and self._lines:
            self._lines.put(None)
            self._writer.join(FLUSH_S)
            self.is_stuck = self._writer.is_alive()
            self._lines = self._writer = None

    def _without_key(self, text: str) -> str:
        if self._secrets is None:
            import json

            from .machine.settings import known_secrets

            secrets = known_secrets()
            self._secrets = [*secrets, *(json.dumps(secret)[1:-1] for secret in secrets)]
        return masked(text, self._secrets)


def _write_all(stream: Optional[IO[str]], data: bytes) -> None:
    """Write to a stream's file. One that is closed or missing is nobody's who listens; the exit status still speaks."""
    try:
        while stream and data:
            data = data[os.write(stream.fileno(), data):]
    except (OSError, ValueError):
        pass


def _is_terminal(stream: Optional[IO[str]]) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
