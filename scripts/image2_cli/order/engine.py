"""Runs one or many orders to their end: sends, looks, saves, stops. `generate` is an engine with one order.

One loop in the main thread decides; each step (one POST, one look, the saving of one order's pictures) runs in a thread
with an end. Decides nothing about money itself: what may be sent is for `order.next_step`, what may be sent again for the
error, how fast for `schedule.Pace`. No asyncio: threads that wait for sockets are as fast here.
"""

from __future__ import annotations

import functools
import heapq
import queue
from dataclasses import dataclass, field
from typing import Callable, Collection, Optional

from ..clock import SLICE_S, Ended, Interrupted
from ..errors import UNAVAILABLE, Image2Error
from .order import FOLLOW, SEND, Order, Tools
from .record import UNKNOWN, end_of
from .schedule import Pace, Watch
from .store import Index

DECIDE, LOOK, SAVE = "decide", "look", "save"  # steps besides SEND and FOLLOW
TICK_S = 1.0  # how often a person sees that time passes
LOOK_S, LEAST_LOOK_S = 30.0, 2.0  # an answer may take so long; near the deadline no less than this
SAVING_S = 3.0  # what saving may take past the deadline: a finished task should not end unsaved
ELSEWHERE_S = 0.25  # how often an order that another process is sending is asked for
SPARED, MOST_SPARED_S = 0.1, 10.0  # of the time of many orders, none is begun in the last part
STOPPING_S = 0.9  # what a step gets after a signal: an order in flight may still tell its task id
FATAL = ("key_rejected", "insufficient_credits")  # what ends every further order too


@dataclass(frozen=True)
class Plan:
    """What a command wants of its orders. `deadline` in the clock's seconds."""

    deadline: float
    concurrency: int = 8
    asynchronous: bool = True
    waits: bool = True  # else submit only
    downloads: bool = True  # else links only
    reorder: Collection[str] = ()  # the states in which an order is ordered again: see `order.next_step`


@dataclass(order=True)
class Step:
    """What is next for one order, and when."""

    due: float
    number: int
    name: str = field(compare=False)
    order: Order = field(compare=False)
    watch: Optional[Watch] = field(compare=False, default=None)


class Engine:
    """See above. `fatal` is the error that stopped all further orders, `pace.refusal` what was last said to one."""

    def __init__(self, orders: list[Order], tools: Callable[[], Tools], plan: Plan) -> None:
        self.orders, self.plan = orders, plan
        self.fatal: Optional[Image2Error] = None
        self.pace = Pace(plan.deadline, len(orders) == 1)
        self._make_tools = tools
        self._steps: list[Step] = []
        self._running: dict[int, tuple[Step, float]] = {}
        self._inbox: queue.Queue[Ended] = queue.Queue()
        self._count = self._late_looks = 0
        self._last_send = plan.deadline

    @functools.cached_property
    def tools(self) -> Tools:
        """What the orders work with, made when there is something to do: what is done needs no key. Raises `Image2Error`."""
        return self._make_tools()

    def decide(self) -> None:
        """Decide what is to be done for each order. Sends nothing."""
        # The locks come first: what another run orders before it ends must be among the names that are read then.
        # An order whose lock is won later is looked up anew: it may have been sent meanwhile.
        locked = {order for order in self.orders if order.lock()}
        indexes = {store: store.index() for store in {order.store for order in locked}} if len(self.orders) > 1 else {}
        for order in self.orders:
            self._decide(order, 0.0, indexes.get(order.store) if order in locked else None)

    @property
    def to_send(self) -> list[Order]:
        """The orders that will be paid for."""
        return [step.order for step in self._steps if step.name in (SEND, DECIDE)]

    @property
    def _is_idle(self) -> bool:
        return not self._steps and not self._running

    def run(self) -> None:
        """Work until nothing is left or the deadline. Raises `Interrupted` once every step has been put down."""
        if self._is_idle:
            return
        tools = self.tools
        clock, ended = tools.clock, None
        # an order that is sent at the very end may be accepted without a word of it: its task would be lost
        self._last_send = self.plan.deadline - min(MOST_SPARED_S, SPARED * (self.plan.deadline - clock.now()))
        while clock.stopped_by is None:
            now = clock.now()
            if ended:
                self._finish(ended, now)
                ended = None
            self._start_steps(now)
            if self._is_idle or (not self._running and now >= self.plan.deadline):
                break
            ended = clock.receive(self._inbox, self._seconds_to_next(now))
            tools.progress.tick(lambda: counts_of(self.orders))
        self._wind_down(ended)

    # --- choosing the next step

    def _start_steps(self, now: float) -> None:
        waiting: list[Step] = []
        while self._steps and self._steps[0].due <= now and len(self._running) < self.plan.concurrency:
            step = heapq.heappop(self._steps)
            if self._is_dropped(step, now):
                continue
            begins = self.pace.next_at(now) if step.name == SEND else now
            if begins is None or begins > now:
                step.due = begins or now + SLICE_S
                waiting.append(step)
            else:
                self._start(step, now)
        for step in waiting:
            heapq.heappush(self._steps, step)

    def _is_dropped(self, step: Step, now: float) -> bool:
        """Is it too late for this step? A first order of one is always sent; of many looks only a few are late."""
        is_late = now >= self.plan.deadline
        if step.name == SEND:
            is_first = len(self.orders) == 1 and step.order.error is None
            return self.pace.gives_up or self.fatal is not None or (now >= self._last_send and not is_first)
        self._late_looks += step.name == LOOK and is_late
        return step.name == LOOK and self._late_looks > self.plan.concurrency

    def _seconds_to_next(self, now: float) -> float:
        if not self._steps or len(self._running) >= self.plan.concurrency:
            return TICK_S
        return max(0.0, min(TICK_S, self._steps[0].due - now))

    def _start(self, step: Step, now: float) -> None:
        if step.name == DECIDE:
            self._decide(step.order, now)
        elif step.name == FOLLOW:
            self._follow(step.order)
        else:
            self.pace.sending += step.name == SEND
            work = {SEND: self._send, LOOK: self._look, SAVE: self._save}[step.name]
            self._running[step.number] = (step, now)
            self.tools.clock.start(lambda: work(step), step.number, self._inbox)

    def _add(self, name: str, order: Order, due: float, watch: Optional[Watch] = None) -> None:
        self._count += 1
        if name != SAVE and due > self.plan.deadline:  # the last look is at the deadline itself
            due = self.plan.deadline
        heapq.heappush(self._steps, Step(due, self._count, name, order, watch))

    # --- the steps, each in its thread

    def _send(self, step: Step) -> None:
        seconds = self.plan.deadline - self.tools.clock.now()
        if step.order.request:
            step.order.send(self.tools, seconds, step.order.request, self.plan.asynchronous)

    def _look(self, step: Step) -> bool:
        tools, watch = self.tools, step.watch
        if watch is None:
            return True
        left = self.plan.deadline - tools.clock.now()
        try:
            task = tools.api.look(step.order.record.task_id or "", min(LOOK_S, max(LEAST_LOOK_S, left)))
        except Image2Error as error:
            final = watch.look_failed(error, tools.clock.now())
            if final:
                raise final from None
            return False
        return watch.look_succeeded(task, tools.clock.now())

    def _save(self, step: Step) -> None:
        tools, order = self.tools, step.order
        order.error = order.conclude()
        if order.error is None and self.plan.downloads:
            order.save(tools, max(self.plan.deadline, tools.clock.now() + SAVING_S))
        elif order.error is None:
            order.keep_links()
        order.forget_data()

    # --- what comes of them

    def _finish(self, ended: Ended, now: float) -> None:
        step, began = self._running.pop(ended.number)
        self.pace.sending -= step.name == SEND
        error = ended.error
        if isinstance(error, Interrupted):
            return
        if error is not None and not isinstance(error, Image2Error):
            error = self._bug(error)
        if step.name == SEND:
            self._after_send(step.order, began, now, error)
        elif step.name == LOOK:
            self._after_look(step, now, ended.result, error)
        else:
            self._settle(step.order, error or step.order.error)

    def _after_send(self, order: Order, began: float, now: float, error: Optional[Image2Error]) -> None:
        if error is None:
            self.pace.accepted()
            self._follow(order)
        elif error.may_resend:
            order.error = error
            self.pace.refused(error, began, now)
            if not self.pace.gives_up:
                if len(self.orders) == 1:
                    pause = max(0.0, (self.pace.next_at(now) or now) - now)
                    self.tools.progress.line(f"{error.code}: next try in {pause:.0f} s")
                self._add(SEND, order, now)
        else:
            self._settle(order, error)

    def _follow(self, order: Order) -> None:
        if not self.plan.waits and order.request is not None and order.record.task_id:
            self.pace.running -= not order.is_resumed
            order.error, order.is_over = None, True
            return
        watch = order.watch(self.tools)
        if order.is_resumed and watch:
            self.pace.running += 1
        order.error = None
        # pictures that came with the answer wait in memory, so they are saved before more is ordered
        self._add(LOOK if watch else SAVE, order, watch.due if watch else -1.0, watch)
        if watch is None and not order.is_resumed:
            self.pace.over()

    def _after_look(self, step: Step, now: float, is_over: bool, error: Optional[Image2Error]) -> None:
        order, watch = step.order, step.watch
        if watch:
            order.task = watch.task or order.task
            self.tools.progress.looked(watch)
        if error is not None and order.recall_links():  # its task is forgotten, but the links it gave may still be good
            error, is_over = None, True
        if error is not None:
            self.pace.over()
            if error.code == "task_failed":
                order.fail(error.server_message)
            elif error.code == "task_not_found" and not order.record.accepted_s:
                order.record.state = UNKNOWN  # named only, and not there: it may be another account's
            self._settle(order, error)
        elif is_over or watch is None:
            self.pace.over()
            self._add(SAVE, order, -1.0, watch)
        elif now < self.plan.deadline:
            self._add(LOOK, order, watch.due, watch)
        else:
            self._settle(order, still_running(watch))

    def _settle(self, order: Order, error: Optional[Image2Error]) -> None:
        order.error, order.is_over = error, True
        if error is not None and is_fatal(error):
            self.fatal = error

    def _decide(self, order: Order, now: float, index: Optional[Index] = None) -> None:
        step = order.decide(self.plan.reorder, index)
        if step in (SEND, FOLLOW):
            self._add(step, order, now)
        elif step is None:
            order.error = Image2Error("still_running", "Another run is sending this order. Run `next` to go on with it; it "
                                      "is not ordered twice.", charged="maybe")
            if now < self.plan.deadline:
                self._add(DECIDE, order, now + ELSEWHERE_S)

    def _bug(self, error: BaseException) -> Image2Error:
        if self.tools.log:
            import traceback

            self.tools.log("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        return Image2Error("internal", f"A bug in this tool ({type(error).__name__}). Please report it.")

    def _wind_down(self, ended: Optional[Ended]) -> None:
        """The time is up, or a signal came: wait for what runs, and say why each order is not at its end."""
        clock = self.tools.clock
        end = clock.now() + STOPPING_S
        while ended or (self._running and clock.now() < end):
            if ended:
                self._finish(ended, clock.now())
            ended = clock.receive(self._inbox, SLICE_S)
        clock.check()
        self.close()

    def close(self) -> None:
        """Say of each order that is not at its end why."""
        for order in self.orders:
            if not order.is_over and order.error is None:
                waits = Image2Error("still_running", "It is not ordered yet.", charged="no")
                order.error = waits if order.charged == "no" else end_of(order.record) or still_running(None)


def still_running(watch: Optional[Watch]) -> Image2Error:
    """A task that goes on when the time is up."""
    news = f"No news of the task ({watch.trouble.code})." if watch and watch.trouble else "The task is still running."
    return Image2Error("still_running", f"{news} Run `next` to go on waiting; do not order again.")


def counts_of(orders: list[Order]) -> dict[str, int]:
    """How many orders stand where, and how many pictures are there."""
    states = [state_of(order) for order in orders]
    images = sum(bool(image.file) for order in orders for image in order.record.images)
    return {"total": len(orders), **{state: states.count(state) for state in ("completed", "failed", "pending", "unknown")},
            "images": images}


def state_of(order: Order) -> str:
    """What the counts say of an order: completed, failed, unknown or pending."""
    if order.error is None:
        return "completed" if order.is_over else "pending"
    if order.error.code == "outcome_unknown":
        return "unknown"
    # a line is not wrong because the key or the credit was
    return "pending" if order.error.retryable or is_fatal(order.error) else "failed"


def is_fatal(error: Image2Error) -> bool:
    """Does it end every further order too: the key, the credit, or a setting of this machine such as its certificates?"""
    return error.code in FATAL or (error.exit_status == UNAVAILABLE and not error.retryable)
