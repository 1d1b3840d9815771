"""Time handed in: a signal is a flag until somebody waits, and no work outlives its end in the way of others."""

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


def test_now_is_monotonic_and_wall_is_the_epoch():
    clock = Clock()
    assert clock.now() == pytest.approx(time.monotonic(), abs=1)
    assert clock.wall() == pytest.approx(time.time(), abs=1)
    assert clock.stopped_by is None


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


def test_sleep_ends_soon_after_a_signal():
    clock = Clock()
    stopped_soon(clock, 0.1)
    took, end = timed(lambda: clock.sleep(30), Interrupted)
    assert isinstance(end, Interrupted) and 0.1 - TICK_S <= took < 3


def test_sleep_raises_at_once_where_the_signal_has_come_already():
    clock = Clock()
    clock.stop(signal.SIGINT)
    for seconds in (0.0, 30.0):
        took, end = timed(lambda seconds=seconds: clock.sleep(seconds), Interrupted)
        assert isinstance(end, Interrupted) and took < 3


def test_call_gives_the_result_or_the_exception_of_the_work():
    clock = Clock()
    assert 42 == clock.call(lambda: 42, 5)
    with pytest.raises(ZeroDivisionError):
        clock.call(lambda: 1 / 0, 5)
    with pytest.raises(SystemExit):
        clock.call(lambda: (_ for _ in ()).throw(SystemExit(3)), 5)


def test_work_that_does_not_end_in_time_is_left_behind():
    release = threading.Event()
    took, end = timed(lambda: Clock().call(release.wait, 0.15), Overdue)
    release.set()
    assert isinstance(end, Overdue) and 0.15 - TICK_S <= took < 3


def test_work_has_no_time_at_all_where_none_is_left():
    release = threading.Event()
    took, end = timed(lambda: Clock().call(release.wait, -5), Overdue)
    release.set()
    assert isinstance(end, Overdue) and took < 3


def test_a_signal_ends_the_waiting_for_work():
    clock, release = Clock(), threading.Event()
    stopped_soon(clock, 0.1)
    took, end = timed(lambda: clock.call(release.wait, 30), Interrupted)
    release.set()
    assert isinstance(end, Interrupted) and signal.SIGTERM == end.signum and took < 3


def test_work_that_lingers_after_a_signal_may_still_tell_its_result():
    clock = Clock()
    stopped_soon(clock, 0.05)
    took, end = timed(lambda: clock.call(lambda: time.sleep(0.4) or "task-1", 30, linger=2.0), Interrupted)
    assert "task-1" == end and took < 4


def test_lingering_has_an_end():
    clock, release = Clock(), threading.Event()
    stopped_soon(clock, 0.05)
    took, end = timed(lambda: clock.call(release.wait, 30, linger=0.4), Interrupted)
    release.set()
    assert isinstance(end, Interrupted) and 0.4 - TICK_S <= took < 4


def test_lingering_never_goes_past_the_works_own_end():
    clock, release = Clock(), threading.Event()
    stopped_soon(clock, 0.05)
    took, end = timed(lambda: clock.call(release.wait, 0.2, linger=30), Interrupted)
    release.set()
    assert isinstance(end, Interrupted) and took < 4


def test_each_gives_every_result_as_it_comes_and_no_more_run_at_once_than_asked():
    busy, most, lock = 0, 0, threading.Lock()

    def work(number):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02 * (5 - number))
        with lock:
            busy -= 1
        if number == 3:
            raise ValueError("three")
        return number * 10

    ended = list(Clock().each([lambda number=number: work(number) for number in range(5)], 10, at_once=2))
    assert list(range(5)) == sorted(index for index, _, _ in ended)
    assert {0: 0, 1: 10, 2: 20, 3: None, 4: 40} == {index: result for index, result, _ in ended}
    assert [3] == [index for index, _, error in ended if isinstance(error, ValueError)]
    assert 2 == most


def test_each_of_nothing_gives_nothing():
    assert [] == list(Clock().each([], 10))


def test_each_begins_in_order_and_the_quick_ones_come_first():
    order = []
    works = [lambda: order.append(0) or time.sleep(0.3), lambda: order.append(1), lambda: order.append(2)]
    assert [1, 2, 0] == [index for index, _, _ in Clock().each(works, 10, at_once=2)]
    assert [0, 1, 2] == order


def test_what_is_not_done_in_time_is_overdue_and_what_had_not_begun_never_begins():
    release, begun = threading.Event(), []
    works = [lambda number=number: begun.append(number) or release.wait(5) for number in range(4)]
    ended = list(Clock().each(works, 0.2, at_once=2))
    assert [(index, Overdue) for index in range(4)] == [(index, type(error)) for index, _, error in ended]
    release.set()
    time.sleep(0.15)
    assert [0, 1] == sorted(begun)


def test_after_a_signal_nothing_more_begins():
    clock, release, begun = Clock(), threading.Event(), []
    stopped_soon(clock, 0.1)
    works = [lambda number=number: begun.append(number) or release.wait(5) for number in range(3)]
    with pytest.raises(Interrupted):
        list(clock.each(works, 30, at_once=1))
    release.set()
    time.sleep(0.15)
    assert [0] == begun
