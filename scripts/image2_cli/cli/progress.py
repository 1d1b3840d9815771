"""What people see on stderr while a run goes on. Never stdout, never the key; agents pay for every word here.

`write(text)` is handed in. On a terminal one line is redrawn; elsewhere there is a line when the status
changes, or at most every 10 s: some shells kill silence, and noise costs tokens.
"""

from __future__ import annotations

QUIET_S = 10.0
BAR = 16


class Progress:
    """Progress of one order, or of several that are waited for in turn."""

    def __init__(self, write, clock, is_terminal: bool, continue_command=lambda task_id: ""):
        self._write, self._clock, self._is_terminal = write, clock, is_terminal
        self._continue_command = continue_command
        self._status = None
        self._told_at = clock.now()
        self._started_at = clock.now()
        self._drawn = 0
        self._over_before = None  # orders of a batch that earlier runs settled

    def line(self, text: str):
        """One whole line."""
        self.clear()
        self._write("image2: %s\n" % text)
        self._told_at = self._clock.now()

    def submitted(self, task_id):
        """An order was accepted; the line carries what continues it, should this run be killed."""
        if task_id:
            self.line("submitted task %s; if this run is killed: %s" % (task_id, self._continue_command(task_id)))
        self._started_at = self._clock.now()

    def looked(self, watch):
        """A look at a task was made."""
        status = (watch.task.status if watch.task else None) or "waiting"
        if watch.trouble:
            status = "no news (%s)" % watch.trouble.code
        percent = watch.task.progress if watch.task else None
        seconds = self._clock.now() - self._started_at
        if self._is_terminal:
            self._draw(status, percent, seconds)
        elif status != self._status or self._clock.now() - self._told_at >= QUIET_S:
            done = " %d%%" % percent if percent is not None and 0 <= percent <= 100 else ""
            self.line("%s%s after %d s" % (status, done, seconds))
        self._status = status

    def counted(self, counts: dict):
        """Many orders went on: how many stand where."""
        seconds = self._clock.now() - self._started_at
        over = counts["completed"] + counts["failed"] + counts["unknown"]
        self._over_before = over if self._over_before is None else self._over_before
        if self._is_terminal:
            made = over - self._over_before  # in this run
            left = ", %d s left" % (seconds / made * (counts["total"] - over)) if made else ""
            self._draw("%d done, %d running, %d failed%s," % (  # fits in 80 columns with the bar
                counts["completed"], counts["pending"], counts["failed"] + counts["unknown"], left),
                100.0 * over / counts["total"], seconds)
        elif self._clock.now() - self._told_at >= QUIET_S:
            self.line("%d of %d done, %d failed after %d s" % (
                counts["completed"], counts["total"], counts["failed"] + counts["unknown"], seconds))

    def saved(self, path: str):
        """A picture stands on disk; only a person wants to know before the answer."""
        if self._is_terminal:
            self.line("saved %s" % path)

    def draw(self, text: str):
        """Redraw the one line of a terminal."""
        self._write("\r%s%s" % (text, " " * max(0, self._drawn - len(text))))
        self._drawn = len(text)

    def clear(self):
        """Leave an empty line for what is printed next."""
        if self._drawn:
            self._write("\r%s\r" % (" " * self._drawn))
            self._drawn = 0

    def _draw(self, status, percent, seconds):
        bar = ""
        if percent is not None and 0 <= percent <= 100:
            full = int(BAR * percent / 100)
            bar = "[%s%s] %3d%% " % ("#" * full, "." * (BAR - full), percent)
        self.draw("%s%s %d s" % (bar, status, seconds))


class Quiet:
    """Says nothing: of one order among many."""

    def line(self, _text):
        """See `Progress.line`."""

    submitted = looked = saved = line
