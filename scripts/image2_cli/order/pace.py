"""How fast orders may go out: never faster than the service takes them. Pure; the clock's seconds are handed in.

A service that answers 429 slows the whole batch down, never fails it: the number of tasks in flight falls to what it
took, Retry-After is obeyed, and after twice as many acceptances the number is tried one higher again. One that is
down is asked with a single order at a time.
"""

from __future__ import annotations

import math
import random

LONGEST_RETRY_AFTER_S = 60.0
HOPELESS_TRIES = 3  # with a service that cannot be reached and never was


def backoff(tries: int) -> float:
    """Seconds to wait after the `tries`-th failure (from 0) before the next try; spread, so that many do not meet."""
    return 0.5 * 2 ** min(tries, 4) * random.uniform(0.75, 1.0)


class Pace:
    """The state of one run. Not for several threads at once: the caller holds a lock.

    `sending`: orders on their way; `running`: tasks accepted and not over; `refusal`: the error of the last order
    that was not taken, None after one that was; `gives_up`: no more orders in this run, later ones may do.
    """

    def __init__(self, deadline: float):
        self.sending, self.running = 0, 0
        self.refusal, self.gives_up = None, False
        self._deadline = deadline
        self._limit = None  # the most tasks in flight that the service takes, None while it takes all
        self._streak = None  # acceptances since the last refusal or raised limit, counted once there is a limit
        self._refusals = 0  # since the last acceptance
        self._refused_at = self._not_before = self._asked_until = -math.inf  # the last: what Retry-After said
        self._is_reached = False

    def next_at(self, now: float):
        """When the next order may be sent, `now` or later; None while something else must happen first."""
        probing = self._refusals and self._limit is None and self.sending  # one order is enough to ask again
        is_full = self._limit is not None and self.running + self.sending >= self._limit
        return None if self.gives_up or probing or is_full else max(now, self._not_before)

    def accepted(self):
        """An order was taken."""
        self.running += 1
        self.refusal, self._refusals, self._is_reached = None, 0, True
        if self._limit is not None:
            self._limit, self._streak = max(self._limit, self.running), self._streak + 1
            if self._streak >= 2 * self._limit:
                self._limit, self._streak = self._limit + 1, 0

    def refused(self, error, began: float, now: float):
        """An order that was sent at `began` was provably not taken, and may be sent again later."""
        self.refusal, self._streak = error, 0
        self._refusals += began >= self._refused_at  # those sent together are one refusal
        self._refused_at = now
        if error.code == "rate_limited":
            self._limit = max(1, self.running)
        asked = error.retry_after_s or 0.0
        self._asked_until = max(self._asked_until, now + asked)
        self._not_before = max(self._asked_until, now + backoff(self._refusals - 1))
        self._is_reached = self._is_reached or error.code != "network"
        hopeless = self._refusals >= HOPELESS_TRIES and not self._is_reached
        self.gives_up = self.gives_up or hopeless or asked > min(LONGEST_RETRY_AFTER_S, self._deadline - now)

    def over(self):
        """A task has ended: a place has become free."""
        self.running -= 1
        self._not_before = self._asked_until
