"""Many orders at once: one scheduler, a few threads, one look at each task when it is due.

The rules of one order stay those of `order`: one accepted POST each, unknown stays unknown. This room decides
only which step of which order is taken next; how fast orders may go out is for `pace` to say. No asyncio: threads
that wait for sockets are as fast here.
"""

from __future__ import annotations

import heapq
import threading

from ..batch.summary import DONE, FAILED, UNFINISHED, UNKNOWN, counts_of
from ..clock import Interrupted
from ..errors import NOT_SAVED, PENDING, UNAVAILABLE, Image2Error
from .pace import Pace
from .polling import LOOK_S, MIN_LOOK_S

FATAL = ("key_rejected", "insufficient_credits", "tls")  # what ends every further order too
SOON = 0.1  # a task that is expected any moment is looked at again after this part of the expected time
QUICKEST_LOOK_S = 0.1


class Batch:
    """Runs entries until all are settled or the time is up.

    `told(counts)` is called from the main thread a few times a second, `save(order)` where a task is over. `fatal` is
    the error that stopped all further orders, `pace.refusal` what the service last said to one it did not take yet.
    """

    def __init__(self, entries, clock, deadline: float, concurrency: int, tools_for_thread, told, save):
        self.entries, self.clock, self.deadline = entries, clock, deadline
        self.concurrency, self._tools_for_thread, self._told = concurrency, tools_for_thread, told
        self._collect = save
        self.fatal = None
        self.pace = Pace(deadline)
        self._changed = threading.Condition()  # its lock may be taken again by the thread that holds it
        self._stopped = False
        self._at_work = 0
        self._expected = None  # seconds a task takes, by the quickest seen so far
        self._scout = None  # the task that is looked at early to learn that
        self._to_send = [entry for entry in reversed(entries) if entry.to_order and entry.error is None]
        self._to_save = []
        self._looks = []  # heap of (due, number, entry)
        for entry in entries:
            if entry.state == UNFINISHED and entry.order.resumed:
                self._follow(entry)

    def close(self):
        """Say of every line that is not completed why."""
        for entry in self.entries:
            entry.close()

    def run(self):
        """Work until nothing is left or the deadline. Raises `Interrupted` once every thread has put down its work."""
        workers = []
        try:
            for _ in range(self.concurrency):
                worker = threading.Thread(target=self._work, daemon=True)
                worker.start()  # where the system gives no more, those that run are stopped below
                workers.append(worker)
            while any(worker.is_alive() for worker in workers) and self.clock.now() < self.deadline + 4:
                self.clock.sleep(0.05)
                self._told(counts_of(self.entries))
            self.clock.check()  # before the first order all workers end at once, which looked like the end of the time
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            end = self.clock.now() + 0.8  # an order in flight may still tell its task id
            for worker in workers:
                worker.join(max(0.0, end - self.clock.now()))

    # --- choosing the next step

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
                if tools.log:
                    import traceback

                    tools.log(traceback.format_exc())
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
        # Pictures that came with the answer wait in memory: of those no more than can be saved at once.
        if self._to_send and self.fatal is None and len(self._to_save) < self.concurrency:
            begins = self.pace.next_at(now)
            if begins is not None and begins <= now:
                self.pace.sending += 1
                return (self._send, self._to_send.pop()), None
            due += [begins] if begins is not None else []
        if self._to_save:
            return (self._save, self._to_save.pop(0)), None
        if self._looks:
            if self._looks[0][0] <= now:
                return (self._look, heapq.heappop(self._looks)[2]), None
            due.append(self._looks[0][0])
        return None, min(due, default=None)

    # --- the steps

    def _send(self, entry):
        order, line = entry.order, entry.line
        accepted, began = False, self.clock.now()
        try:
            order.begin(line.request, line.stem, line.mark)
            # A clock that was set back made a new order look older than the failed one: each run paid again.
            order.record["created_s"] = max(order.record["created_s"] or 0.0, entry.replaced_s + 0.001)
            order.send(line.request, self.deadline - self.clock.now())
            accepted = True
        except Image2Error as error:
            if error.charged != "no" or error.exit_status != UNAVAILABLE or not error.retryable:
                self.fatal = error if error.code in FATAL else self.fatal
                if error.code in FATAL:
                    entry.error = error
                    return
                raise
            with self._changed:
                entry.error = error
                self._to_send.append(entry)
                self.pace.refused(error, began, self.clock.now())
            return
        finally:
            with self._changed:
                self.pace.sending -= 1
                if accepted:
                    self.pace.accepted()
        self._follow(entry)

    def _follow(self, entry):
        entry.error = None
        entry.watch = entry.order.watch(floor=self._floor())
        with self._changed:
            if entry.watch is None:
                self.pace.running -= not entry.order.resumed
                self._to_save.append(entry)
            else:
                self.pace.running += entry.order.resumed
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
        asked_at = self.clock.now()
        try:
            task = entry.order.tools.api.look(watch.task_id, min(LOOK_S, max(MIN_LOOK_S, self.deadline - asked_at)))
        except Image2Error as error:
            try:
                watch.missed(error, self.clock.now())
            except Image2Error:
                with self._changed:
                    self.pace.over()
                if error.code == "task_not_found" and entry.order.record:
                    entry.order.note(error=error.as_json())  # for a later --retry-failed
                raise
            over = False
        else:
            over = watch.saw(task, self.clock.now())
            if entry.order.record and entry.order.record.get("error"):
                entry.order.note(error=None)  # it was forgotten for a while: to order it again would pay twice
        with self._changed:
            if not over:
                self._push(entry)
                return
            self.pace.over()
            if not entry.order.resumed:
                self._learn(asked_at - watch.accepted_at)
        entry.order.settle(watch)
        with self._changed:
            self._to_save.append(entry)

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
        if entry.watch is None:
            entry.order.settle(None)
        try:
            self._collect(entry.order)
        finally:  # pictures that came inside the answer filled the memory until the end
            task, entry.watch = entry.order.task, None
            entry.order.task = task._replace(images=tuple(image._replace(data=None) for image in task.images))
        self._settle(entry, None)

    def _settle(self, entry, error):
        entry.error = error
        code = error.code if error else None
        if error is None:
            entry.state = DONE
        elif code == "outcome_unknown":
            entry.state = UNKNOWN
        elif code in FATAL:
            self.fatal = error
        elif error.exit_status in (PENDING, NOT_SAVED) or (error.exit_status == UNAVAILABLE and error.retryable):
            entry.state = UNFINISHED
        else:
            entry.state = FAILED
