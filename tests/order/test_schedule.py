"""When a task is looked at again and when an order may go out, with a clock of the tests' own: looks are free, and a
failed one never ends a task; a service that asks to come later is asked later, by fewer, and never for nothing."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from image2_cli.errors import Image2Error
from image2_cli.order.schedule import Pace, Watch
from image2_cli.service.task import ImageResult, Task

THERE = ImageResult(0, "https://x/1.png", status="completed")
DONE = Task("t-1", "completed", 100, (THERE,))
EMPTY = Task("t-1", "completed", 100, ())
PARTLY = Task("t-1", "partial", 50, (THERE, ImageResult(1)))
FAILED = Task("t-1", "failed", 0, (), "refused")


def running(progress=None, error=None):
    return Task("t-1", "pending", progress, (ImageResult(0, status="pending"),), error)


def error(code, **known):
    return Image2Error(code, "words", **known)


def followed(*answers, seconds=100.0, resumed=False, age=0.0, interval=None, wanted=1):
    """Look as the engine does, the last answer for ever: (what ended it or None, the times of the looks, the watch)."""
    watch, now, times, queue = Watch(-age, 0.0, resumed, wanted, interval), 0.0, [], list(answers)
    while True:
        now = max(now, min(watch.due, seconds))
        times.append(round(now, 3))
        assert len(times) < 2000, "it would wait for ever"
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        ended = None
        if isinstance(answer, Image2Error):
            ended = watch.look_failed(answer, now)
        elif watch.look_succeeded(answer, now):
            ended = answer
        if ended is not None or now >= seconds:
            return ended, times, watch


@pytest.mark.parametrize(("options", "answers", "times"), [
    ({}, [DONE], [5]),
    ({"resumed": True, "age": 500}, [DONE], [0]),
    ({"age": 2}, [DONE], [3]),  # it counts from the order, not from the waiting
    ({}, [running(), running(), running(), DONE], [5, 6, 7, 8]),
    ({"resumed": True, "age": 40}, [running(), running(), running(), DONE], [0, 2, 4.1, 6.305]),
    ({"interval": 2.0}, [running(10), running(50), error("network"), DONE], [2, 4, 6, 8]),
    ({"seconds": 7.5}, [running()], [5, 6, 7, 7.5]),  # the last look is at the deadline itself
    ({"seconds": 2}, [running()], [2]),
    ({}, [EMPTY], [5, 6, 7, 8]),
    ({"wanted": 2}, [PARTLY], [5, 6, 7, 8]),  # a word nobody knows, one of two: that one is not left for ever
    ({}, [EMPTY, EMPTY, DONE], [5, 6, 7]),
    ({}, [running(error="blocked")], [5, 6, 7]),
    ({}, [running(error="blocked"), running(), running(error="blocked"), DONE], [5, 6, 7, 8]),
    ({"wanted": 2}, [DONE._replace(images=(THERE, ImageResult(1))), DONE._replace(images=(THERE, THERE))], [5, 6]),
    ({"wanted": 2}, [DONE._replace(images=(THERE, ImageResult(1, status="failed")))], [5]),
    ({"wanted": 2}, [DONE], [5, 6, 7, 8]),
])
def test_a_task_is_looked_at_when_it_may_be_over_and_no_more(options, answers, times):
    assert times == followed(*answers, **options)[1]


@pytest.mark.parametrize(("before", "progress", "age", "step"), [
    (10, 20, 10, 3.0),      # 60 % of the 40 s left would be 24: three steps at most
    (10, 90, 20, 1.3333),   # 60 % of 2.2 s
    (10, 99, 20, 1.0),      # never less than the shortest step
    (89, 90, 100, 6.6667),  # three steps of 3 s would be 9
    (3, 4, 20, 1.0),        # below it says nothing
    (98, 99, 400, 2.4242),  # up to 99
    (10, 250, 20, 1.0),
    (50, 40, 20, 1.0),      # backwards
    (50, None, 20, 1.0),
])
def test_a_step_follows_progress_that_moved(before, progress, age, step):
    watch = Watch(1000.0 - age, 1000.0, True, 1, None)
    watch.look_succeeded(running(before), 1000.0 - age / 2)
    assert watch.look_succeeded(running(progress), 1000.0) is False
    assert step == pytest.approx(watch.due - 1000.0, abs=1e-3)


@pytest.mark.parametrize("code", ["network", "unavailable", "rate_limited", "outcome_unknown"])
def test_a_failed_look_never_ends_a_task(code):
    for resumed in (False, True):
        ended, times, watch = followed(*[error(code)] * 50, DONE, seconds=200, resumed=resumed)
        assert (DONE, 51, None) == (ended, len(times), watch.trouble)


MISSING, GONE = error("task_not_found", http_status=404), error("unavailable", http_status=410, server_message="expired")


@pytest.mark.parametrize(("answers", "options", "code", "looks"), [
    ([running(), error("key_rejected")], {}, "key_rejected", 2),
    ([error("tls")], {"resumed": True}, "tls", 1),
    ([MISSING] * 8 + [DONE], {}, None, 9),             # a task may be unknown for fifteen seconds
    ([MISSING], {}, "task_not_found", 12),
    ([MISSING, MISSING, DONE], {"resumed": True, "age": 3600}, None, 3),
    ([MISSING], {"resumed": True, "age": 3600}, "task_not_found", 3),
    ([MISSING, MISSING, running(), MISSING, MISSING, DONE], {"resumed": True, "age": 3600}, None, 6),
    ([GONE], {}, "task_failed", 3),
    ([error("rate_limited", http_status=429)] * 9 + [DONE], {}, None, 10),
])
def test_only_what_lasts_or_what_no_look_can_mend_ends_the_waiting(answers, options, code, looks):
    ended, times, _watch = followed(*answers, **options)
    assert (code, looks) == (ended.code if isinstance(ended, Image2Error) else None, len(times))


def test_a_retry_after_of_a_look_is_obeyed_up_to_a_minute():
    watch = Watch(0.0, 0.0, True, 1, None)
    for asked, due in ((20.0, 20.0), (3600.0, 60.0), (None, 1.0)):
        watch.look_failed(error("rate_limited", retry_after_s=asked), 0.0)
        assert due == watch.due


# --- what the schedule costs, simulated

MEDIAN_S, SIGMA, ROUND_TRIP_S, TASKS = 35.0, 0.35, 0.2, 600


def simulated(progress, interval=None):
    """Waits for tasks of 35 s (log-normal, round trip 0.2 s): (looks, added percent)."""
    dice, looks, percents = random.Random(7), 0, []
    for _ in range(TASKS):
        length, now = dice.lognormvariate(math.log(MEDIAN_S), SIGMA), 0.0
        watch = Watch(0.0, 0.0, False, 1, interval)
        while True:
            now = max(now, watch.due) + ROUND_TRIP_S
            looks += 1
            seen = now - ROUND_TRIP_S / 2
            if watch.look_succeeded(DONE if seen >= length else running(progress(seen / length)), now):
                break
        percents.append(100 * (now - length) / length)
    return looks / TASKS, statistics.mean(percents)


@pytest.mark.parametrize(("progress", "looks", "percent"), [
    (lambda part: int(100 * part), 12, 2.5), (lambda part: 50, 26, 3.5), (lambda part: int(100 * part**2), 20, 4.5),
    (lambda part: 25 * int(4 * part), 20, 4.5)], ids=["moves", "stuck", "slow start", "quarters"])
def test_the_schedule_looks_seldom_and_adds_little(progress, looks, percent):
    found = simulated(progress)
    assert found[0] <= looks and found[1] <= percent, found


def test_a_fixed_interval_asks_more_and_adds_more():
    assert (17.3, 3.7) == pytest.approx(simulated(lambda part: None, 2.0), rel=0.06)


# --- the pace


def refusal(code="rate_limited", retry_after_s=None):
    return Image2Error(code, "later", retry_after_s=retry_after_s, may_resend=True)


def busy(running_, is_single=False):
    """A pace with so many tasks running and nothing refused yet."""
    pace = Pace(1000.0, is_single)
    for _ in range(running_):
        pace.accepted()
    return pace


def places(pace):
    """How many more orders may be sent once the back-off is over."""
    free = 0
    for pace.sending in range(10):
        free += pace.next_at(100.0) is not None
    pace.sending = 0
    return free


def test_nothing_holds_orders_back_while_all_are_taken():
    pace = busy(200)
    pace.sending = 50
    assert -7.0 == pace.next_at(-7.0)  # a clock's zero may be anywhere


@pytest.mark.parametrize(("running_", "code", "now_free", "free_after_an_end"), [
    (4, "rate_limited", 0, 1), (0, "rate_limited", 1, 1), (3, "unavailable", 1, 1)])
def test_a_refusal_holds_the_number_in_flight_at_what_was_taken(running_, code, now_free, free_after_an_end):
    pace = busy(running_)
    pace.refused(refusal(code), began=10.0, now=10.0)
    assert now_free == places(pace)
    if running_:
        pace.over()
    assert free_after_an_end == places(pace)


def test_a_place_that_becomes_free_ends_the_back_off_but_no_retry_after():
    for asked, begins in ((None, 10.0), (30.0, 40.0)):
        pace = busy(4)
        pace.refused(refusal(retry_after_s=asked), began=10.0, now=10.0)
        pace.over()
        assert begins == pace.next_at(10.0)


def test_one_more_is_tried_after_twice_as_many_acceptances_again_and_again():
    pace = busy(2)
    pace.refused(refusal(), began=0.0, now=0.0)
    found = []
    for _ in range(4 + 6):
        pace.over()
        pace.accepted()
        found.append(places(pace))
    assert [0, 0, 0, 1, 1, 1, 1, 1, 1, 2] == found


def test_refusals_of_orders_sent_together_count_as_one():
    pace = Pace(1000.0, False)
    for _ in range(20):
        pace.refused(refusal("network"), began=0.0, now=1.0)
    assert not pace.gives_up and pace.next_at(1.0) <= 1.5


@pytest.mark.parametrize(("is_single", "code", "gives_up"), [
    (True, "network", True), (True, "unavailable", True), (False, "network", True), (False, "unavailable", False)])
def test_one_order_is_tried_three_times_and_a_batch_only_gives_up_a_service_it_never_reached(is_single, code, gives_up):
    pace = Pace(1000.0, is_single)
    for tries in (1, 2, 3):  # each sent as soon as the one before was refused
        assert not pace.gives_up
        pace.refused(refusal(code), began=10.0 * tries, now=10.0 * tries + 1)
    assert gives_up is pace.gives_up
    reached = busy(1)
    for tries in range(1, 6):
        reached.refused(refusal("network"), began=10.0 * tries, now=10.0 * tries + 1)
    assert not reached.gives_up


@pytest.mark.parametrize(("asked", "deadline", "gives_up"), [(60.0, 99.0, False), (61.0, 99.0, True), (20.0, 25.0, True)])
def test_a_retry_after_beyond_a_minute_or_the_deadline_ends_the_sending(asked, deadline, gives_up):
    pace = Pace(deadline, False)
    pace.refused(refusal(retry_after_s=asked), began=10.0, now=10.0)
    assert gives_up == pace.gives_up
