"""When to look at a task again, and when the next order may go out. Pure: the clock's seconds are handed in.

Looks are free, and a failed one never ends a task. The schedule (t = seconds since the order was accepted): a first look
at 5 s, or at once when resuming; then a step of 5 % of t, between 1 s and 3 s; where the progress moved since the last
look, up to three steps, but no more than 60 % of the time the progress says is left. Simulated over tasks of 35 s it
looks 11 times and adds 2.3 % of waiting; a fixed 2 s looks 18 times and adds 3.8 % (tests keep the figures).
"""

from __future__ import annotations

import math
from typing import Optional

from ..clock import backoff
from ..errors import UNAVAILABLE, Image2Error
from ..service.task import Task

FIRST_LOOK_S = 5.0
EARLY_404_S = 15.0  # a task may not be known everywhere at once
IN_A_ROW = 3  # looks that say the same bad thing before it is believed
EMPTY_LOOKS = 4  # looks at a task that is completed but does not show every image yet
PASSING = (403, 404, 407, 408, 425, 429)  # of the 4xx: no last word on a task
TRIES = 3  # of an order that is not taken
LONGEST_RETRY_AFTER_S = 60.0


def is_whole(task: Task, wanted: int) -> bool:
    """Is it known of every image what became of it? Some services say completed a moment early."""
    return len(task.images) >= max(1, wanted) and all(
        image.is_there or image.is_over or image.error for image in task.images[:max(1, wanted)])


class Watch:
    """One task under observation: what was last seen, and when to look next.

    `accepted_at` and `due` are in the clock's seconds. `interval` replaces the schedule. `wanted`: how many images were
    ordered, 0 where that is not known.
    """

    def __init__(self, accepted_at: float, now: float, is_resumed: bool, wanted: int, interval: Optional[float]) -> None:
        self.accepted_at, self.interval, self.wanted = accepted_at, interval, wanted
        self.due = now if is_resumed else max(now, accepted_at + (interval or FIRST_LOOK_S))
        self.task: Optional[Task] = None  # the last one seen
        self.trouble: Optional[Image2Error] = None  # of the last look, None after a good one
        self._progress: Optional[float] = None
        self._is_first_word = is_resumed  # nothing shows yet that the service can be reached from this run
        self._said = ("", 0)  # what was said last, and how often in a row

    def look_succeeded(self, task: Task, now: float) -> bool:
        """A look succeeded. True when there is nothing left to wait for."""
        self.task, self.trouble, self._is_first_word = task, None, False
        outcome = task.outcome(self.wanted)
        if outcome == "failed" or (outcome == "done" and is_whole(task, self.wanted)):
            return True
        has_image = any(image.is_there for image in task.images)
        complaint = "" if has_image or not task.error else f"error {task.error}"
        # "partial", with one of two pictures, is no end by any word we know; the picture must not wait for ever
        is_short = outcome == "done" or (has_image and not task.is_waiting)
        times = self._repeated("short" if is_short else complaint)
        if (is_short and times >= EMPTY_LOOKS) or (complaint and times >= IN_A_ROW):
            return True
        self.due = now + self._step(task.progress, now)
        return False

    def look_failed(self, error: Image2Error, now: float) -> Optional[Image2Error]:
        """A look failed. The error that ends the task, None where another look may help."""
        self.trouble = error
        status = error.http_status or 0
        # a page without words of its own is a gateway's
        is_final = error.code == "task_not_found" or (400 <= status < 500 and status not in PASSING and error.server_message)
        times = self._repeated(f"{error.code} {status}" if is_final else "")
        is_lasting = error.exit_status == UNAVAILABLE and not error.retryable  # a setting of this machine
        if error.code == "key_rejected" or (is_lasting and self._is_first_word):
            return error
        if error.code == "task_not_found" and times >= IN_A_ROW and now - self.accepted_at > EARLY_404_S:
            return error
        if is_final and error.code != "task_not_found" and times >= IN_A_ROW:
            return Image2Error("task_failed", f"The service answers {status} each time it is asked for the task.",
                               http_status=status, server_message=error.server_message)
        self.due = now + max(self._step(None, now), min(error.retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))
        return None

    def _repeated(self, word: str) -> int:
        self._said = (word, self._said[1] + 1 if word and word == self._said[0] else 1)
        return self._said[1] if word else 0

    def _step(self, progress: Optional[float], now: float) -> float:
        before, self._progress = self._progress, progress
        if self.interval:
            return self.interval
        elapsed = now - self.accepted_at
        base = min(3.0, max(1.0, 0.05 * elapsed))
        if progress is None or not 5 <= progress <= 99 or before is None or progress <= before:
            return base
        return min(3 * base, max(1.0, 0.6 * elapsed * (100 - progress) / progress))


class Pace:
    """How fast orders may go out: never faster than the service takes them.

    A service that answers 429 slows a batch down, never fails it: the number of tasks in flight falls to what it took,
    Retry-After is obeyed, and after twice as many acceptances one more is tried. One that is down is asked with a single
    order at a time. `refusal` is the error of the last order that was not taken; `gives_up`: no more orders in this run.
    """

    def __init__(self, deadline: float, is_single: bool) -> None:
        self.sending, self.running = 0, 0
        self.refusal: Optional[Image2Error] = None
        self.gives_up = False
        self._deadline, self._is_single = deadline, is_single
        self._limit = math.inf  # the most tasks in flight that the service takes
        self._streak = 0  # acceptances since the last refusal or raised limit
        self._refusals = 0  # since the last acceptance
        self._is_reached = False
        self._refused_at = self._not_before = self._asked_until = -math.inf  # the last: what Retry-After said

    def next_at(self, now: float) -> Optional[float]:
        """When the next order may be sent, `now` or later; None while something else must happen first."""
        is_asking = self._refusals > 0 and self.sending > 0  # one order is enough to ask again
        is_full = self.running + self.sending >= self._limit
        return None if self.gives_up or is_asking or is_full else max(now, self._not_before)

    def accepted(self) -> None:
        """An order was taken."""
        self.running += 1
        self.refusal, self._refusals, self._is_reached = None, 0, True
        self._limit, self._streak = max(self._limit, self.running), self._streak + 1
        if self._streak >= 2 * self._limit:
            self._limit, self._streak = self._limit + 1, 0

    def refused(self, error: Image2Error, began: float, now: float) -> None:
        """An order that was sent at `began` was provably not taken, and may be sent again."""
        self.refusal, self._streak = error, 0
        self._refusals += began >= self._refused_at  # those sent together are one refusal
        self._refused_at = now
        if error.code == "rate_limited":
            self._limit = max(1, self.running)
        asked = error.retry_after_s or 0.0
        pause = max(asked, backoff(self._refusals - 1))
        self._asked_until = max(self._asked_until, now + asked)
        self._not_before = max(self._asked_until, now + pause)
        self._is_reached = self._is_reached or error.code != "network"
        is_hopeless = self._refusals >= TRIES and (self._is_single or not self._is_reached)
        too_long = (asked or (pause if self._is_single else 0.0)) > min(LONGEST_RETRY_AFTER_S, self._deadline - now)
        self.gives_up = self.gives_up or is_hopeless or too_long

    def over(self) -> None:
        """A task has ended: a place has become free."""
        self.running -= 1
        self._not_before = self._asked_until
