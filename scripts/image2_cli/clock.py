"""Time, back-off and threads with an end, handed in so that tests can own them.

A leaf. A signal only raises a flag here; it becomes an exception at the next wait, never between a paid answer and the
record of it. Blocking work runs in a daemon thread that is waited for with an end: the timeouts of `requests` restart
with every byte (an 8 s drip passed a 1 s timeout) and a name look-up cannot be interrupted at all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple, Optional, Sequence, TypeVar

if TYPE_CHECKING:
    import queue  # with threading, a third of what `--help` would load; imported where they are used

SLICE_S = 0.05
Result = TypeVar("Result")


class Interrupted(BaseException):
    """SIGINT or SIGTERM came. `signum` is its number, `charged` what the order under way may have cost."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.charged = "maybe"


class Overdue(Exception):
    """Work handed to a clock did not end in time; its thread is left behind."""


class Ended(NamedTuple):
    """How a piece of work ended: `error` is None where `result` holds."""

    number: int
    result: Any
    error: Optional[BaseException]


def backoff(tries: int) -> float:
    """Seconds to wait after the `tries`-th failure (from 0) before the next try; spread, so that many do not meet."""
    import random

    return min(8.0, 0.5 * 2.0 ** min(tries, 10)) * random.uniform(0.75, 1.0)


class Clock:
    """The real clock. `stopped_by` is the number of the signal that came, or None."""

    def __init__(self) -> None:
        self.stopped_by: Optional[int] = None

    def stop(self, signum: int, _frame: Any = None) -> None:
        """The signal handler."""
        self.stopped_by = signum

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, for records that outlive the process."""
        return time.time()

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.stopped_by is not None:
            raise Interrupted(self.stopped_by)

    def sleep(self, seconds: float) -> None:
        """Sleep; raises `Interrupted` within a twentieth of a second of a signal."""
        end = self.now() + seconds
        self.check()
        while self.now() < end:
            time.sleep(min(SLICE_S, max(0.0, end - self.now())))
            self.check()

    def start(self, work: Callable[[], Any], number: int, inbox: queue.Queue[Ended]) -> None:
        """Run `work()` in a thread of its own; how it ended comes into `inbox`, under `number`."""
        import threading

        def run() -> None:
            try:
                inbox.put(Ended(number, work(), None))
            except BaseException as error:
                inbox.put(Ended(number, None, error))

        threading.Thread(target=run, daemon=True).start()

    def receive(self, inbox: queue.Queue[Ended], seconds: float) -> Optional[Ended]:
        """What comes into `inbox` within `seconds`, or until a signal; else None."""
        from queue import Empty

        end = self.now() + seconds
        while True:
            left = end - self.now()
            try:
                return inbox.get(timeout=max(0.0, min(SLICE_S, left)))
            except Empty:
                if left <= 0 or self.stopped_by is not None:
                    return None

    def call(self, work: Callable[[], Result], seconds: float, linger: float = 0.0) -> Result:
        """Run `work()` in a thread; its result or exception, or `Overdue` after `seconds`.

        On a signal it is given `linger` more seconds to end before `Interrupted` is raised.
        """
        [ended] = self.each([work], seconds, 1, linger)
        if ended.error is not None:
            raise ended.error
        result: Result = ended.result
        return result

    def each(self, works: Sequence[Callable[[], Any]], seconds: float, at_once: int = 4,
             linger: float = 0.0) -> Iterator[Ended]:
        """Run all `works`, up to `at_once` at a time; yields how each ended, as it ends.

        After a signal none begins, and `Interrupted` is raised unless the last ones end within `linger` seconds. Those that
        have not ended after `seconds` get an `Overdue`; their threads are left behind.
        """
        from queue import Queue

        inbox: Queue[Ended] = Queue()
        waiting: list[int] = list(range(len(works)))
        running: list[int] = []
        end = self.now() + seconds
        while waiting or running:
            while waiting and len(running) < at_once and self.stopped_by is None:
                number = waiting.pop(0)
                running.append(number)
                self.start(works[number], number, inbox)
            if self.stopped_by is not None:
                end = min(end, self.now() + linger)
                if not running:
                    self.check()
            ended = self.receive(inbox, end - self.now())
            if ended is not None:
                running.remove(ended.number)
                yield ended
            elif self.now() >= end:
                self.check()
                yield from (Ended(number, None, Overdue()) for number in running + waiting)
                return
