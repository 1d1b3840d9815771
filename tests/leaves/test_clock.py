"""Time handed in: a signal is a flag until somebody waits, and no work outlives its end in the way of others."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from image2_cli.clock import Clock, Interrupted, Overdue
from platforms import TICK_S


def stopped_soon(clock, seconds, signum=signal.SIGTERM):
    timer = threading.Timer(seconds, clock.stop, (signum,))
    timer.daemon = True
    timer.start()


def timed(work, *errors):
    """(seconds, the exception of one of these kinds, or the result)."""
    began = time.monotonic()
    try:
        end = work()
    except errors as error:
        end = error
    return time.monotonic() - began, end


def test_a_signal_only_raises_a_flag():
    clock = Clock()
    clock.check()
    clock.stop(signal.SIGINT, None)
    assert signal.SIGINT == clock.stopped_by
    with pytest.raises(Interrupted) as caught:
        clock.check()
    assert signal.SIGINT == caught.value.signum
    assert not isinstance(caught.value, Exception)  # no `except Exception` on its way may take it for a fault


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.12])
def test_sleep_sleeps_as_long_as_it_is_told(seconds):
    took, _ = timed(lambda: Clock().sleep(seconds))
    assert max(0, seconds) - TICK_S <= took < max(0, seconds) + 3


def test_sleep_and_the_waiting_for_work_end_soon_after_a_signal():
    release = threading.Event()
    for wait in (lambda clock: clock.sleep(30), lambda clock: clock.call(release.wait, 30)):
        clock = Clock()
        stopped_soon(clock, 0.1)
        took, end = timed(lambda wait=wait, clock=clock: wait(clock), Interrupted)
        assert signal.SIGTERM == end.signum and 0.1 - TICK_S <= took < 3
        with pytest.raises(Interrupted):  # it has come already
            clock.sleep(0.0)
    release.set()


def test_call_gives_the_result_or_the_exception_of_the_work():
    clock = Clock()
    assert 42 == clock.call(lambda: 42, 5)
    with pytest.raises(ZeroDivisionError):
        clock.call(lambda: 1 / 0, 5)
    with pytest.raises(SystemExit):
        clock.call(lambda: (_ for _ in ()).throw(SystemExit(3)), 5)


@pytest.mark.parametrize(("linger", "expected"), [(2.0, "task-1"), (0.1, None)])
def test_work_that_lingers_after_a_signal_may_still_tell_its_result_until_that_ends(linger, expected):
    clock = Clock()
    stopped_soon(clock, 0.05)
    took, end = timed(lambda: clock.call(lambda: time.sleep(0.4) or "task-1", 30, linger=linger), Interrupted)
    assert (isinstance(end, Interrupted) if expected is None else end == expected) and took < 4


def test_each_begins_in_order_gives_every_result_as_it_comes_and_no_more_run_at_once_than_asked():
    begun, running, most = [], [], []

    def work(number):
        begun.append(number)
        running.append(number)
        most.append(len(running))
        time.sleep(0.3 if number == 0 else 0.02)
        running.remove(number)
        if number == 3:
            raise ValueError("three")
        return number * 10

    ended = list(Clock().each([lambda number=number: work(number) for number in range(5)], 10, at_once=2))
    assert [1, 2, 3, 4, 0] == [number for number, _, _ in ended]
    assert {0: 0, 1: 10, 2: 20, 3: None, 4: 40} == {number: result for number, result, _ in ended}
    assert [3] == [number for number, _, error in ended if isinstance(error, ValueError)]
    assert ([0, 1, 2, 3, 4], 2) == (begun, max(most))


def test_what_is_not_done_in_time_is_overdue_and_what_had_not_begun_never_begins():
    release, begun = threading.Event(), []
    works = [lambda number=number: begun.append(number) or release.wait(5) for number in range(4)]
    took, ended = timed(lambda: list(Clock().each(works, 0.2, at_once=2)))
    assert 0.2 - TICK_S <= took < 3
    assert [(index, Overdue) for index in range(4)] == [(index, type(error)) for index, _, error in ended]
    release.set()
    time.sleep(0.15)
    assert [0, 1] == sorted(begun)


@pytest.mark.parametrize("linger", [0.0, 10.0])
def test_after_a_signal_nothing_more_begins(linger):
    clock, begun = Clock(), []
    stopped_soon(clock, 0.1)
    works = [lambda number=number: begun.append(number) or time.sleep(0.3) for number in range(3)]
    took, end = timed(lambda: list(clock.each(works, 30, at_once=1, linger=linger)), Interrupted)
    assert isinstance(end, Interrupted) and took < 3
    time.sleep(0.3)
    assert [0] == begun
