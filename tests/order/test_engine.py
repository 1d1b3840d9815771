"""The law as a table, and the engine in a time of the tests' own."""

from __future__ import annotations

import heapq
import math
import random
import signal
import subprocess
import sys
import uuid

import pytest
from image2_cli.clock import Clock, Ended, Interrupted
from image2_cli.errors import Image2Error
from image2_cli.order.engine import Engine, Plan, counts_of
from image2_cli.order.fields import build
from image2_cli.order.order import FOLLOW, REPORT, SEND, Order, Tools, new_order, next_step
from image2_cli.order.output import Output
from image2_cli.order.record import CHARGED, FAILED_OR_PARTIAL, SENDING, UNKNOWN, Record
from image2_cli.order.store import Store
from image2_cli.service.task import ImageResult, Task
from running import SCRIPT

ROUND_TRIP_S = 0.2
LAW = {"not_sent": SEND, "sending": REPORT, "unknown": REPORT, "accepted": FOLLOW, "linked": FOLLOW, "saved": FOLLOW,
       "partial": FOLLOW, "failed": REPORT}
REORDER = {"generate --new": tuple(CHARGED), "batch --new": (*FAILED_OR_PARTIAL, SENDING, UNKNOWN),
           "--retry-failed": FAILED_OR_PARTIAL}


@pytest.mark.parametrize("state", CHARGED)
def test_what_the_same_command_does_depends_on_the_state_alone(state):
    assert {LAW[state]} == {next_step(Record("i", "f", "s", state, sent_s=sent_s)) for sent_s in (0.0, 9e9)}
    for reorder in REORDER.values():
        assert (SEND if state in reorder else LAW[state]) == next_step(Record("i", "f", "s", state), reorder)


@pytest.mark.parametrize("state", CHARGED)
def test_an_order_comes_behind_the_last_one_and_takes_the_place_of_one_that_was_never_sent(state, tmp_path):
    """Which of two records of one place was the newer was a matter of luck."""
    store, (request, _mistakes) = Store(str(tmp_path)), build({"prompt": "a cat"})
    last = Record(str(uuid.uuid4()), "f" * 32, "s", state, 3, created_s=5.0)
    store.save(last)
    order = new_order(store, Output(str(tmp_path)), request, "cat", "f" * 32, "s")
    assert SEND == order.decide(tuple(CHARGED))
    assert ((3, 5.0) if state == "not_sent" else (4, 0.0)) == (order.record.sequence, order.record.created_s)
    assert order.record.id != last.id, "a service may replay its answer to the old one"


class VirtualClock(Clock):
    """Each piece of work takes a round trip, and time passes only where somebody waits."""

    def __init__(self):
        super().__init__()
        self.time, self._ends = 0.0, []

    def now(self):
        return self.time

    def wall(self):
        return 1_795_000_000.0 + self.time

    def start(self, work, number, inbox):
        try:
            ended = Ended(number, work(), None)
        except BaseException as error:
            ended = Ended(number, None, error)
        heapq.heappush(self._ends, (self.time + ROUND_TRIP_S, number, ended))

    def receive(self, inbox, seconds):
        if self._ends and self._ends[0][0] <= self.time + seconds:
            at, _number, ended = heapq.heappop(self._ends)
            self.time = max(self.time, at)
            return ended
        self.time += max(seconds, 1e-4)
        return None


class TimedService:
    """Tasks that take so many seconds each; `at_once` of them, others are refused."""

    def __init__(self, clock, lengths, at_once=math.inf):
        self.clock, self.lengths, self.at_once = clock, list(lengths), at_once
        self.ends, self.looks, self.refused = {}, 0, 0

    def submit(self, body, order_id, seconds, had_local_image=False):
        if sum(end > self.clock.now() for end in self.ends.values()) >= self.at_once:
            self.refused += 1
            raise Image2Error("rate_limited", "later", may_resend=True)
        task_id = f"t-{len(self.ends)}"
        self.ends[task_id] = self.clock.now() + self.lengths[len(self.ends)]
        return Task(task_id, "pending", 0, (ImageResult(0, status="pending"),))

    def look(self, task_id, seconds):
        self.looks += 1
        if self.clock.now() >= self.ends[task_id]:
            return Task(task_id, "completed", 100, (ImageResult(0, "https://x/0.png", status="completed"),))
        return Task(task_id, "pending", None, (ImageResult(0, status="pending"),))


class Nobody:
    """Nobody is told anything."""

    def __getattr__(self, _name):
        return lambda *_: None


@pytest.fixture
def engine_of(tmp_path):
    """An engine of `count` orders against a service whose tasks take these seconds."""
    def made(lengths, deadline=1000.0, first=Order, **service):
        clock = VirtualClock()
        api = TimedService(clock, lengths, **service)
        store, output = Store(str(tmp_path)), Output(str(tmp_path), None, None)
        assert store.problem() is None
        orders = []
        for number in range(len(lengths)):
            request, _mistakes = build({"prompt": f"picture {number}"})
            kind = Order if number else first
            record = Record(str(uuid.uuid4()), f"{number:032x}", "s", sequence=1, request=request.described())
            orders.append(kind(store, output, record, request))
        tools = Tools(api, clock, Nobody(), "https://image2.test")
        engine = Engine(orders, lambda: tools, Plan(deadline, downloads=False))
        engine.decide()
        return engine, api, clock
    return made


def test_sixty_tasks_take_no_longer_than_the_longest_of_them(engine_of):
    dice = random.Random(7)
    lengths = [dice.uniform(20, 60) for _ in range(60)]
    engine, api, clock = engine_of(lengths)
    engine.run()
    ideal = max(lengths) + math.ceil(60 / 8) * ROUND_TRIP_S
    assert 60 == counts_of(engine.orders)["completed"]
    assert clock.now() <= 1.05 * ideal + ROUND_TRIP_S, clock.now() / ideal
    assert api.looks <= 60 * 26, api.looks / 60


def test_a_service_that_takes_three_at_once_is_kept_busy_and_seldom_asked_for_more(engine_of):
    engine, api, clock = engine_of([10.0] * 24, at_once=3)
    engine.run()
    assert 24 == counts_of(engine.orders)["completed"]
    assert clock.now() <= 1.35 * 24 / 3 * 10 and api.refused <= 24, (clock.now(), api.refused)


def test_nothing_is_sent_after_the_deadline_and_every_order_says_where_it_stands(engine_of):
    engine, api, clock = engine_of([1000.0] * 40, deadline=0.5)
    engine.run()
    counts = counts_of(engine.orders)
    assert (40, 40, 24) == (counts["total"], counts["pending"], len(api.ends))
    assert {"still_running"} == {order.error.code for order in engine.orders}
    assert 24 == sum(order.charged == "yes" for order in engine.orders)
    assert clock.now() < 2


HOLDER = """
import sys
import uuid
sys.path.insert(0, sys.argv[1])
from image2_cli.order.record import Record
from image2_cli.order.store import Store
store, record = Store(sys.argv[2]), Record(str(uuid.uuid4()), sys.argv[3], "s", sequence=1)
assert store.lock(record.fingerprint)
print("locked", flush=True)
sys.stdin.readline()
record.state, record.task_id = "accepted", "t-9"
store.save(record)
store.unlock(record.fingerprint)
print("sent", flush=True)
"""


@pytest.mark.slow
def test_an_order_that_another_run_sends_meanwhile_is_not_sent_again(engine_of, tmp_path):
    """The names were read before; the lock was won after. 100 lines by two runs at once were POSTed 108 times."""
    words = [sys.executable, "-c", HOLDER, str(SCRIPT.parent), str(tmp_path), f"{1:032x}"]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "locked\n" == other.stdout.readline()

    class Slow(Order):
        def decide(self, reorder, index=None):
            other.stdin.write("\n")
            other.stdin.flush()
            assert "sent\n" == other.stdout.readline()
            return super().decide(reorder, index)

    engine, api, clock = engine_of([1.0, 1.0], first=Slow)
    engine.run()
    other.communicate()
    assert 1 == len(api.ends)
    assert ["yes", "yes"] == [order.charged for order in engine.orders]


def test_an_order_that_could_not_be_answered_in_time_is_not_begun(engine_of):
    """Sent in the last moment it may be accepted without a word, and its task is lost: 8 of 24 were."""
    engine, api, clock = engine_of([1.0] * 300, deadline=5.0)
    engine.run()
    assert api.ends and max(api.ends.values()) - 1.0 <= 4.5 + ROUND_TRIP_S


def test_a_signal_before_the_first_order_lets_none_out(engine_of):
    engine, api, clock = engine_of([1.0] * 3)
    clock.stop(signal.SIGTERM)
    with pytest.raises(Interrupted):  # it was told as still_running
        engine.run()
    assert {} == api.ends
