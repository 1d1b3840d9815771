"""What people see on stderr while a run goes on. Never stdout, never the key; agents pay for every word here.

`write(text)` is handed in. On a terminal one line moves every second; elsewhere there is a line when the status changes,
or at most every 10 s: some shells kill silence, and noise costs tokens.
"""

from __future__ import annotations

from typing import Callable, Optional

from ..clock import Clock
from ..order.schedule import Watch
from ..text import clean

QUIET_S, TICK_S = 10.0, 1.0
BAR = 16


class Progress:
    """`continue_command(task_id)`: what goes on with a task if this run is killed. `is_many`: counts are told, not tasks."""

    def __init__(self, write: Callable[[str], None], clock: Clock, is_terminal: bool,
                 continue_command: Callable[[str], str], is_many: bool = False) -> None:
        self._write, self._clock, self._is_terminal = write, clock, is_terminal
        self._continue_command, self._is_many = continue_command, is_many
        self._status, self._percent = "sending", -1.0
        self._started_at = self._said_at = self._drawn_at = clock.now()
        self._drawn = 0
        self._over_before: Optional[int] = None  # orders that earlier runs settled

    def line(self, text: str) -> None:
        """One whole line, in place of the one that is drawn."""
        self.clear()
        self._write(f"image2: {text}\n")
        self._said_at = self._clock.now()

    def clear(self) -> None:
        """Leave an empty line for what is printed next."""
        if self._drawn:
            self._write(f"\r{' ' * self._drawn}\r")
            self._drawn = 0

    def submitted(self, task_id: Optional[str]) -> None:
        if self._is_many:
            return
        if task_id:
            self.line(f"submitted task {task_id}; if this run is killed: {self._continue_command(task_id)}")
        self._status, self._started_at = "waiting", self._clock.now()

    def looked(self, watch: Watch) -> None:
        if self._is_many:
            return
        status = (clean(watch.task.status, 40) if watch.task else None) or "waiting"
        if watch.trouble:
            status = f"no news ({watch.trouble.code})"
        percent = watch.task.progress if watch.task else None
        self._percent = percent if percent is not None and 0 <= percent <= 100 else -1.0
        now = self._clock.now()
        if not self._is_terminal and (status != self._status or now - self._said_at >= QUIET_S):
            done = f" {self._percent:.0f}%" if self._percent >= 0 else ""
            self.line(f"{status}{done} after {now - self._started_at:.0f} s")
        self._status = status

    def tick(self, counts: Callable[[], dict[str, int]]) -> None:
        """Time passes: a person wants to see that. `counts()` says how many orders stand where."""
        now = self._clock.now()
        if now - self._drawn_at < (TICK_S if self._is_terminal else QUIET_S):
            return
        self._drawn_at = now
        if self._is_many:
            self._count(counts(), now - self._started_at)
        if self._is_terminal:
            full = int(BAR * self._percent / 100)
            bar = f"[{'#' * full}{'.' * (BAR - full)}] {self._percent:3.0f}% " if self._percent >= 0 else ""
            text = f"{bar}{self._status} {now - self._started_at:.0f} s"
            self._write(f"\r{text}{' ' * max(0, self._drawn - len(text))}")
            self._drawn = len(text)

    def _count(self, counts: dict[str, int], seconds: float) -> None:
        wrong = counts["failed"] + counts["unknown"]
        over = counts["completed"] + wrong
        self._percent = 100.0 * over / counts["total"]
        if self._over_before is None:
            self._over_before = over
        made = over - self._over_before  # in this run
        left = f", {seconds / made * (counts['total'] - over):.0f} s left" if made else ""
        self._status = f"{counts['completed']} done, {counts['pending']} open, {wrong} failed{left},"
        if not self._is_terminal:
            self.line(f"{counts['completed']} of {counts['total']} done, {wrong} failed after {seconds:.0f} s")
