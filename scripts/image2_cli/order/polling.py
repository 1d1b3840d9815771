"""When to look at a task again, and the loop that does. Polls are free; a failed one never ends a task.

The clock and the look are handed in; no network, no disk of its own.

The schedule (t = seconds since the order was accepted): a first look at 5 s, or at once when resuming; then
a step of 5 % of t, between 1 s and 3 s; where the progress moved since the last look, up to three steps, but
no more than 60 % of the time the progress says is left. Simulated over tasks of 35 s it looks 12 times and
adds 2.2 % of waiting; a fixed 2 s looks 17 times and adds 3.7 % (tests/test_waiting.py keeps the figures).
"""

from __future__ import annotations

from ..errors import Image2Error
from ..service.task import Task

FIRST_LOOK_S = 5.0
EARLY_404_S = 15.0  # a task may not be known everywhere at once
LASTING_404 = 3  # looks in a row
EMPTY_LOOKS = 4  # looks at a task that is completed but does not show every image yet
LOOK_S, MIN_LOOK_S = 15.0, 2.0  # an answer may take so long; near the deadline no less than this


def is_whole(task: Task, wanted: int) -> bool:
    """Is it known of every image of a completed task what became of it? Some services say completed a moment early."""
    return len(task.images) >= max(1, wanted) and all(
        image.is_there or image.is_over or image.error for image in task.images)


class Watch:
    """One task under observation: what was last seen, and when to look next.

    `accepted_at` and `due` are in the clock's seconds. `interval` replaces the schedule; `floor` is its
    shortest step. `wanted`: the images it was ordered to make, where that is known.
    """

    def __init__(self, task_id: str, accepted_at: float, now: float, resumed: bool = False, interval=None,
                 floor: float = 1.0, wanted: int = 1):
        self.task_id, self.accepted_at, self.interval, self.floor = task_id, accepted_at, interval, floor
        self.wanted = wanted
        self.due = now if resumed else max(now, accepted_at + (interval or FIRST_LOOK_S))
        self.task = None  # the last Task seen
        self.trouble = None  # the Image2Error of the last look, None after a good one
        self._progress = None
        self._is_first_word = resumed  # nothing shows yet that the service can be reached from this run
        self._missing = 0
        self._empty = 0

    def saw(self, task: Task, now: float) -> bool:
        """A look succeeded. True when there is nothing left to wait for."""
        self.task, self.trouble, self._missing, self._is_first_word = task, None, 0, False
        if task.outcome == "failed":
            return True
        if task.outcome == "done":
            if is_whole(task, self.wanted):
                return True
            self._empty += 1
            if self._empty >= EMPTY_LOOKS:
                return True
        self.due = now + self._step(task.progress, now)
        return False

    def missed(self, error: Image2Error, now: float):
        """A look failed. Raises `error` where that is final: 401, 403, a lasting 404, a bad certificate at once."""
        self.trouble = error
        if error.code == "task_not_found":
            self._missing += 1
            if self._missing >= LASTING_404 and now - self.accepted_at > EARLY_404_S:
                raise error
        elif error.code == "key_rejected" or (error.code == "tls" and self._is_first_word):
            raise error
        else:
            self._missing = 0
        self.due = now + max(self._step(None, now), min(error.retry_after_s or 0, 60.0))

    def _step(self, progress, now: float) -> float:
        before, self._progress = self._progress, progress
        if self.interval:
            return self.interval
        elapsed = now - self.accepted_at
        base = min(3.0, max(self.floor, 0.05 * elapsed))
        if progress is None or not 5 <= progress <= 99 or before is None or progress <= before:
            return base
        left = elapsed * (100 - progress) / progress
        return min(3 * base, max(self.floor, 0.6 * left))


def wait_for(watch: Watch, look, clock, deadline: float, told=lambda watch: None) -> bool:
    """Look at the watched task until it is over (True) or the clock reaches `deadline` (False).

    `look(task_id, seconds)` asks once; the last look is at the deadline itself. `told(watch)` is called
    after every look. Raises `Image2Error` only where looking again cannot help.
    """
    while True:
        clock.sleep(max(0.0, min(watch.due, deadline) - clock.now()))
        over = look_once(watch, look, clock, deadline)
        told(watch)
        if over or clock.now() >= deadline:
            return over


def look_once(watch: Watch, look, clock, deadline: float) -> bool:
    """One look, whatever comes of it; True when the task is over."""
    try:
        task = look(watch.task_id, min(LOOK_S, max(MIN_LOOK_S, deadline - clock.now())))
    except Image2Error as error:
        watch.missed(error, clock.now())
        return False
    return watch.saw(task, clock.now())
