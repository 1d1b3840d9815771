"""Time as the other rooms see it: handed in, so that tests can own it.

A leaf. A signal only raises a flag here; it becomes an exception at the next wait, never between a paid
answer and the record of it. Blocking work runs in a daemon thread that is waited for with an end:
`requests` timeouts restart with every byte (an 8 s drip passed a 1 s timeout) and a name look-up cannot
be interrupted at all, so neither may sit in the main thread.
"""

from __future__ import annotations

import time

SLICE_S = 0.05


class Interrupted(BaseException):
    """SIGINT or SIGTERM came. `signum` is its number, `charged` what the order under way may have cost."""

    charged = "maybe"

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class Overdue(Exception):
    """Work handed to `Clock.call` did not end in time; its thread is left behind."""


class Clock:
    """The real clock. `stopped_by` is the number of the signal that came, or None."""

    stopped_by = None

    def stop(self, signum, _frame=None):
        """The signal handler."""
        self.stopped_by = signum

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, for records that outlive the process."""
        return time.time()

    def check(self):
        """Raise `Interrupted` if a signal came."""
        if self.stopped_by is not None:
            raise Interrupted(self.stopped_by)

    def sleep(self, seconds: float):
        """Sleep; raises `Interrupted` within a twentieth of a second of a signal."""
        end = self.now() + seconds
        self.check()
        while (left := end - self.now()) > 0:
            time.sleep(min(SLICE_S, left))
            self.check()

    def call(self, work, seconds: float, linger: float = 0.0):
        """Run `work()` in a thread; its result or exception, or `Overdue` after `seconds`.

        On a signal it is given `linger` more seconds to end before `Interrupted` is raised.
        """
        ((_index, result, error),) = self.each([work], seconds, 1, linger)
        if error is not None:
            raise error
        return result

    def each(self, works, seconds: float, at_once: int = 4, linger: float = 0.0):
        """Run all `works` in up to `at_once` threads; yields (index, result, error) as each one ends.

        Those that have not ended after `seconds` get an `Overdue`; their threads are left behind.
        """
        import queue
        import threading

        ended, waiting = queue.Queue(), list(enumerate(works))[::-1]
        open_indexes = {index for index, _work in waiting}
        for _ in range(min(at_once, len(waiting))):
            threading.Thread(target=_run_all, args=(waiting, ended), daemon=True).start()
        end, stopping = self.now() + seconds, False
        try:
            while open_indexes:
                if self.stopped_by is not None and not stopping:
                    end, stopping = min(end, self.now() + linger), True
                try:
                    index, result, error = ended.get(timeout=max(0.0, min(SLICE_S, end - self.now())))
                except queue.Empty:
                    if self.now() < end:
                        continue
                    self.check()
                    yield from ((index, None, Overdue()) for index in sorted(open_indexes))
                    return
                open_indexes.discard(index)
                yield index, result, error
        finally:
            waiting.clear()  # what has not begun by now would begin behind the back of whoever gave up


def _run_all(waiting, ended):
    while True:
        try:
            index, work = waiting.pop()
        except IndexError:
            return
        try:
            ended.put((index, work(), None))
        except BaseException as error:
            ended.put((index, None, error))
