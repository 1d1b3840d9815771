"""Laws of the pace: a service that asks to come later is asked later, by fewer, and never for nothing."""

import pytest
from image2_cli.errors import Image2Error
from image2_cli.order.pace import Pace, backoff


def refusal(code="rate_limited", retry_after_s=None):
    return Image2Error(code, "later", retry_after_s=retry_after_s)


def busy(running):
    """A pace with so many tasks running and nothing refused yet."""
    pace = Pace(1000.0)
    for _ in range(running):
        pace.accepted()
    return pace


def places(pace):
    """How many more orders may be sent once the back-off is over."""
    free = 0
    for pace.sending in range(10):
        free += pace.next_at(100.0) is not None
    pace.sending = 0
    return free


@pytest.mark.parametrize("tries", range(8))
def test_the_back_off_doubles_to_eight_seconds_and_is_spread(tries):
    most = min(8.0, 0.5 * 2 ** tries)
    found = [backoff(tries) for _ in range(200)]
    assert 0.75 * most <= min(found) < 0.8 * most
    assert 0.95 * most < max(found) <= most


def test_nothing_holds_orders_back_while_all_are_taken():
    pace = busy(200)
    pace.sending = 50
    assert -7.0 == pace.next_at(-7.0)  # a clock's zero may be anywhere


def test_a_refusal_for_the_rate_holds_the_number_in_flight_at_what_was_taken():
    pace = busy(4)
    pace.refused(refusal(), began=10.0, now=10.0)
    assert 0 == places(pace)
    pace.over()
    assert 1 == places(pace)


def test_a_refusal_while_nothing_runs_leaves_one_order_at_a_time():
    pace = Pace(1000.0)
    pace.refused(refusal(), began=10.0, now=10.0)
    assert 10.375 <= pace.next_at(10.0) <= 10.5
    assert 1 == places(pace)


def test_a_place_that_becomes_free_ends_the_back_off():
    pace = busy(4)
    pace.refused(refusal(), began=10.0, now=10.0)
    pace.over()
    assert 10.0 == pace.next_at(10.0)


def test_retry_after_is_obeyed_even_where_a_place_becomes_free():
    pace = busy(4)
    pace.refused(refusal(retry_after_s=30.0), began=10.0, now=10.0)
    pace.refused(refusal(), began=11.0, now=11.0)
    pace.over()
    assert 40.0 == pace.next_at(12.0)


def test_one_more_is_tried_after_twice_as_many_acceptances_again_and_again():
    pace = busy(2)
    pace.refused(refusal(), began=0.0, now=0.0)
    found = []
    for _ in range(4 + 6):
        pace.over()
        pace.accepted()
        found.append(places(pace))
    assert [0, 0, 0, 1, 1, 1, 1, 1, 1, 2] == found


def test_a_service_that_is_down_is_asked_with_one_order_at_a_time():
    pace = busy(3)
    pace.refused(refusal("unavailable"), began=0.0, now=0.0)
    assert 1 == places(pace)


def test_refusals_of_orders_sent_together_count_as_one():
    pace = Pace(1000.0)
    for _ in range(20):
        pace.refused(refusal("network"), began=0.0, now=1.0)
    assert not pace.gives_up
    assert pace.next_at(1.0) <= 1.5


def test_a_service_that_was_never_reached_is_given_up_after_three_tries():
    pace = Pace(1000.0)
    for tries in (1, 2, 3):  # each sent as soon as the one before was refused
        pace.refused(refusal("network"), began=10.0 * tries, now=10.0 * tries + 10)
        assert (tries == 3) == pace.gives_up
    assert 0 == places(pace)


@pytest.mark.parametrize("reach", [Pace.accepted, lambda pace: pace.refused(refusal("unavailable"), began=0.0, now=0.0)])
def test_a_service_that_was_reached_once_is_not_given_up_for_the_network(reach):
    pace = Pace(1000.0)
    reach(pace)
    for tries in range(1, 10):
        pace.refused(refusal("network"), began=10.0 * tries, now=10.0 * tries + 1)
    assert not pace.gives_up


@pytest.mark.parametrize(("asked", "deadline", "gives_up"), [
    (60.0, 1000.0, False), (61.0, 1000.0, True), (20.0, 25.0, True), (15.0, 25.0, False), (None, 9.5, True)])
def test_a_retry_after_beyond_a_minute_or_the_deadline_ends_the_sending(asked, deadline, gives_up):
    pace = Pace(deadline)
    pace.refused(refusal(retry_after_s=asked), began=10.0, now=10.0)
    assert gives_up == pace.gives_up


def test_an_acceptance_forgets_the_refusals():
    pace = Pace(1000.0)
    error = refusal("network")
    pace.refused(error, began=1.0, now=1.0)
    pace.refused(error, began=2.0, now=2.0)
    assert error is pace.refusal
    pace.accepted()
    assert pace.refusal is None
    pace.refused(error, began=3.0, now=3.0)
    assert pace.next_at(3.0) <= 3.5
