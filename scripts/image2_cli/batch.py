"""Many orders at once: one scheduler, a few threads, one look at each task when it is due.

The rules of one order stay those of `order`: one accepted POST each, unknown stays unknown. This room decides
only which step of which order is taken next. No asyncio: threads that wait for sockets are as fast here.

A service that answers 429 slows the whole batch down, never fails it: the number of tasks in flight falls to what
the service took, Retry-After is obeyed, and after as many acceptances the number is tried one higher again.
"""

from __future__ import annotations

import heapq
import random
import threading

from . import records
from .clock import Interrupted
from .errors import OK, UNAVAILABLE, Image2Error
from .order import Order

FATAL = ("key_rejected", "insufficient_credits", "tls")  # what ends every further order too
SOON = 0.1  # a task that is expected any moment is looked at again after this part of the expected time
QUICKEST_LOOK_S = 0.1
UNFINISHED, DONE, FAILED, UNKNOWN = "pending", "completed", "failed", "unknown"


class Entry:
    """One line on its way. `state` is what the counts say of it, `error` why it is not completed."""

    def __init__(self, line, order):
        self.line, self.order = line, order
        self.state, self.error = UNFINISHED, None
        self.watch = None

    @property
    def to_order(self) -> bool:
        """Nothing of this line was accepted yet."""
        return self.state == UNFINISHED and not self.order.resumed and not self.order.task


def prepare(lines, tools_of, again: bool, unknown_again: bool) -> list:
    """Lines -> entries, each joined to the record of an earlier run where there is one.

    `tools_of(place)` gives the tools for a place. `again`: failed lines are to be ordered again,
    `unknown_again`: those of unknown fate too.
    """
    known, entries = {}, []
    for line in lines:
        tools = tools_of(line.place)
        if tools.store not in known:
            known[tools.store] = {record.get("fingerprint"): record for record in tools.store.all()
                                  if record.get("service") == tools.service}
        record = known[tools.store].get(line.mark)
        entries.append(_joined(line, tools, record, again, unknown_again))
    return entries


def _joined(line, tools, record, again, unknown_again) -> Entry:
    entry = Entry(line, Order(tools, line.place))
    order = entry.order
    if not tools.store.lock(line.mark, records.OWNER):
        entry.error = Image2Error("still_running", "Another run is at this line.")
        order.record = record
        return entry
    if record is None:
        return entry
    state, failed = record.get("state"), _failure_of(record)
    order.record = record
    if state in (records.SENDING, records.UNKNOWN):
        entry.state, entry.error = UNKNOWN, Image2Error("outcome_unknown", "It may have been accepted and charged.")
        if unknown_again:
            return Entry(line, Order(tools, line.place))
    elif failed:
        entry.state, entry.error = FAILED, failed
        if again:
            return Entry(line, Order(tools, line.place))
    elif state in (records.SUBMITTED, records.FINISHED):
        order.resumed = True
        if state == records.FINISHED and order.is_saved:
            entry.state, order.images = DONE, record.images
    return entry


def _failure_of(record):
    """The error of an order that ended without all its pictures, None of one that did not."""
    error = record.get("error") or next((image["error"] for image in record.images if image.get("error")), None)
    finished = record.get("state") == records.FINISHED
    if not error or (not finished and error.get("code") not in ("rejected", "request_too_large")):
        return None
    code = "some_failed" if finished and record.images else str(error.get("code"))
    try:
        return Image2Error(code, str(error.get("message") or "failed"))
    except KeyError:
        return Image2Error("task_failed", "failed")


class Batch:
    """Runs entries until all are settled or the time is up.

    `told(batch)` is called from the main thread a few times a second; `fatal` is the error that stopped all
    further orders. Counting is by `counts`.
    """

    def __init__(self, entries, clock, deadline: float, concurrency: int, tools_for_thread, told):
        self.entries, self.clock, self.deadline = entries, clock, deadline
        self.concurrency, self._tools_for_thread, self._told = concurrency, tools_for_thread, told
        self.fatal = None
        self._changed = threading.Condition()  # its lock may be taken again by the thread that holds it
        self._stopped = False
        self._at_work = 0
        self._running = 0  # tasks accepted and not over
        self._sending = 0
        self._limit = None  # the most tasks in flight that the service takes, None while it takes all
        self._streak = 0  # acceptances since the last refusal
        self._refusals = 0  # since the last acceptance
        self._not_before = 0.0
        self._asked_to_wait = False
        self._expected = None  # seconds a task takes, by the quickest seen so far
        self._scout = None  # the task that is looked at early to learn that
        self._to_send = [entry for entry in reversed(entries) if entry.to_order and entry.error is None]
        self._to_save = []
        self._looks = []  # heap of (due, number, entry)
        for entry in entries:
            if entry.state == UNFINISHED and entry.order.resumed:
                self._follow(entry)

    @property
    def counts(self) -> dict:
        """How many lines stand where, and how many pictures are there."""
        states = [entry.state for entry in self.entries]
        images = sum(bool(image.get("path")) for entry in self.entries for image in entry.order.images)
        return {"total": len(states), **{state: states.count(state) for state in (DONE, FAILED, UNFINISHED, UNKNOWN)},
                "images": images}

    def run(self):
        """Work until nothing is left or the deadline. Raises `Interrupted` once every thread has put down its work."""
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self.concurrency)]
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers) and self.clock.now() < self.deadline + 5:
                self.clock.sleep(0.05)
                self._told(self)
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for worker in workers:
                worker.join(0.8)  # an order in flight may still tell its task id

    # --- choosing the next step ---------------------------------------------------------------------------------

    def _work(self):
        tools = self._tools_for_thread()
        while True:
            step = self._next()
            if step is None:
                return
            do, entry = step
            order = entry.order
            order.tools = tools._replace(store=order.tools.store)
            try:
                do(entry)
            except Interrupted:
                entry.state = UNKNOWN if order.charged == "maybe" else entry.state
                return
            except Image2Error as error:
                self._settle(entry, error)
            except Exception as bug:
                self._settle(entry, Image2Error("internal", "a bug (%s)" % type(bug).__name__, charged=order.charged))
            finally:
                with self._changed:
                    self._at_work -= 1
                    self._changed.notify_all()

    def _next(self):
        with self._changed:
            while not self._stopped:
                now = self.clock.now()
                if now >= self.deadline or self.clock.stopped_by is not None:
                    return None
                step, due = self._choose(now)
                if step:
                    self._at_work += 1
                    return step
                if due is None and not self._at_work:
                    return None
                self._changed.wait(max(0.001, min(0.2, (due or self.deadline) - now)))
        return None

    def _choose(self, now):
        """(step to take now or None, when the next one is due or None). Orders first: they run while we work."""
        due = []
        if self._to_send and self.fatal is None:
            in_flight = self._running + self._sending
            if self._limit is None or in_flight < self._limit:
                if now >= self._not_before:
                    self._sending += 1
                    return (self._send, self._to_send.pop()), None
                due.append(self._not_before)
        if self._to_save:
            return (self._save, self._to_save.pop(0)), None
        if self._looks:
            if self._looks[0][0] <= now:
                return (self._look, heapq.heappop(self._looks)[2]), None
            due.append(self._looks[0][0])
        return None, min(due, default=None)

    # --- the steps ----------------------------------------------------------------------------------------------

    def _send(self, entry):
        order, line = entry.order, entry.line
        accepted = False
        try:
            order.begin(line.request, line.stem, line.mark)
            order.send(line.request, self.deadline - self.clock.now())
            accepted = True
        except Image2Error as error:
            if error.charged != "no" or error.exit_status != UNAVAILABLE or not error.retryable:
                self.fatal = error if error.code in FATAL else self.fatal
                if error.code in FATAL:
                    entry.error = error
                    return
                raise
            self._slow_down(entry, error)
        finally:
            with self._changed:
                self._sending -= 1
                self._running += accepted
        self._speed_up()
        self._follow(entry)

    def _slow_down(self, entry, error):
        with self._changed:
            self._to_send.append(entry)
            entry.error = error
            self._streak, self._refusals = 0, self._refusals + 1
            if error.code == "rate_limited":
                self._limit = max(1, self._running)
            self._asked_to_wait = error.retry_after_s is not None
            pause = min(8.0, 0.5 * 2 ** min(self._refusals - 1, 5)) * random.uniform(0.75, 1.0)
            self._not_before = self.clock.now() + max(pause, error.retry_after_s or 0.0)

    def _speed_up(self):
        with self._changed:
            self._streak, self._refusals = self._streak + 1, 0
            if self._limit is not None:
                self._limit = max(self._limit, self._running)
                if self._streak >= 2 * self._limit:
                    self._limit, self._streak = self._limit + 1, 0

    def _follow(self, entry):
        entry.error = None
        entry.watch = entry.order.watch(floor=self._floor())
        with self._changed:
            if entry.watch is None:
                self._running -= not entry.order.resumed
                self._to_save.append(entry)
            else:
                self._running += entry.order.resumed
                if not entry.order.resumed and not entry.watch.interval:
                    entry.watch.due = entry.watch.accepted_at + self._first_look(entry)
                self._push(entry)
            self._changed.notify_all()

    def _first_look(self, entry) -> float:
        # Until a task has ended, the oldest one is looked at early, to learn how long tasks take here; the others
        # are then asked when theirs should be over instead of all at 5 s.
        if self._expected is not None:
            return min(5.0, self._expected)
        self._scout = self._scout or entry
        return 0.5 if self._scout is entry else 5.0

    def _floor(self) -> float:
        return 1.0 if self._expected is None else min(1.0, max(QUICKEST_LOOK_S, SOON * self._expected))

    def _push(self, entry):
        heapq.heappush(self._looks, (entry.watch.due, entry.line.number, entry))

    def _look(self, entry):
        watch = entry.watch
        if entry is self._scout and self._expected is None:
            watch.floor = min(1.0, max(QUICKEST_LOOK_S, 0.15 * (self.clock.now() - watch.accepted_at)))
        try:
            task = entry.order.tools.api.look(watch.task_id, 15.0)
        except Image2Error as error:
            try:
                watch.missed(error, self.clock.now())
            except Image2Error:
                self._over()
                raise
            over = False
        else:
            over = watch.saw(task, self.clock.now())
        with self._changed:
            if not over:
                self._push(entry)
                return
            self._over()
            self._learn(self.clock.now() - watch.accepted_at)
        entry.order.settle(watch)
        with self._changed:
            self._to_save.append(entry)

    def _over(self):
        with self._changed:
            self._running -= 1
            if not self._asked_to_wait:
                self._not_before = 0.0  # a place has become free

    def _learn(self, seconds: float):
        if self._expected is None or seconds < self._expected:
            self._expected = seconds
            soonest = self.clock.now()
            for _due, _number, entry in self._looks:
                watch = entry.watch
                watch.floor = self._floor()
                if not watch.interval:
                    watch.due = max(soonest, min(watch.due, watch.accepted_at + min(5.0, seconds)))
            self._looks = [(entry.watch.due, number, entry) for _due, number, entry in self._looks]
            heapq.heapify(self._looks)

    def _save(self, entry):
        entry.order.collect(self.deadline)
        self._settle(entry, None)

    def _settle(self, entry, error):
        entry.error = error
        code = error.code if error else None
        if error is None:
            entry.state = DONE
        elif code == "outcome_unknown":
            entry.state = UNKNOWN
        elif error.exit_status in (8, 10) or (error.exit_status == UNAVAILABLE and error.retryable):
            entry.state = UNFINISHED
        else:
            entry.state = FAILED


def end_of(batch) -> tuple:
    """(the error that stands for the whole batch or None, exit status)."""
    counts = batch.counts
    unsaved = [entry for entry in batch.entries if entry.error is not None and entry.error.exit_status == 10]
    if batch.fatal is not None:
        return batch.fatal, batch.fatal.exit_status
    if counts[UNFINISHED] > len(unsaved):
        error = Image2Error("still_running", "%d of %d orders are not finished. Run `next`: what is done is not paid again."
                            % (counts[UNFINISHED], counts["total"]))
    elif unsaved:
        error = Image2Error("not_saved", "%d orders are paid for but not saved. Run `next`: saving again is free."
                            % len(unsaved))
    elif counts[UNKNOWN]:
        error = Image2Error("outcome_unknown", "%d orders may have been accepted and charged; they are not repeated. Tell "
                            "the user; only they decide on --new." % counts[UNKNOWN])
    elif counts[FAILED]:
        code = "some_failed" if counts[DONE] else "task_failed"
        error = Image2Error(code, "%d of %d orders failed. --retry-failed orders them again; ask the user first."
                            % (counts[FAILED], counts["total"]))
    else:
        return None, OK
    return error, error.exit_status
