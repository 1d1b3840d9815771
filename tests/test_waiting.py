"""The poll schedule and its loop, with a clock of the tests' own: polls are free, and a failed one never ends a task."""

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.errors import Image2Error
from image2_cli.order.polling import Watch, look_once, wait_for
from image2_cli.service.task import ImageResult, Task

quick = settings(max_examples=100, deadline=None, database=None)
DONE = Task("t-1", "completed", 100, (ImageResult(0, "https://x/1.png", status="completed"),))
EMPTY = Task("t-1", "completed", 100, ())
FAILED = Task("t-1", "failed", 0, (), "refused")


class Clock:
    """Time that passes only where somebody sleeps or asks the service."""

    def __init__(self, now=1000.0):
        self.time, self.slept = now, []

    def now(self):
        return self.time

    def sleep(self, seconds):
        assert seconds >= 0 and len(self.slept) < 2000, "it would wait for ever"
        self.slept.append(seconds)
        self.time += seconds


class Script:
    """A service that gives these answers in turn, the last one for ever; `round_trip` seconds each."""

    def __init__(self, clock, *answers, round_trip=0.0):
        self.clock, self.answers, self.round_trip = clock, list(answers), round_trip
        self.looks = []  # (when, seconds allowed)

    def __call__(self, task_id, seconds):
        assert "t-1" == task_id
        self.looks.append((self.clock.now(), seconds))
        self.clock.time += self.round_trip
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Image2Error):
            raise answer
        return answer


def running(progress=None, status="pending"):
    return Task("t-1", status, progress, (ImageResult(0, status="pending"),))


def error(code, **known):
    return Image2Error(code, "words", **known)


def followed(*answers, seconds=100.0, resumed=False, age=0.0, interval=None, round_trip=0.0, floor=1.0,
             wanted=0):
    """Wait for a task: (over, the looks, the watch), times counted from the start of the waiting."""
    clock = Clock()
    watch = Watch("t-1", clock.now() - age, clock.now(), resumed, interval, floor, wanted)
    script = Script(clock, *answers, round_trip=round_trip)
    over = wait_for(watch, script, clock, clock.now() + seconds)
    return over, [(round(at - 1000, 6), allowed) for at, allowed in script.looks], watch


def times(*answers, **options):
    return [at for at, _ in followed(*answers, **options)[1]]


# --- when to look


def test_the_first_look_is_at_five_seconds():
    assert [5.0] == times(DONE)


def test_a_resumed_task_is_looked_at_at_once():
    assert [0.0] == times(DONE, resumed=True, age=500)


def test_the_first_look_counts_from_the_order_not_from_the_waiting():
    assert [3.0] == times(DONE, age=2)
    assert [0.0] == times(DONE, age=5)
    assert [0.0] == times(DONE, age=60)


def test_without_progress_a_step_is_five_percent_of_the_age_between_one_and_three_seconds():
    assert [5, 6, 7, 8] == times(running(), running(), running(), DONE)
    assert [0, 2, 4.1, 6.305] == times(running(), running(), running(), DONE, resumed=True, age=40)
    assert [0, 3, 6, 9] == times(running(), running(), running(), DONE, resumed=True, age=500)
    assert [0, 1, 2] == times(running(), running(), DONE, resumed=True, age=1)


def test_a_batch_may_have_a_longer_shortest_step():
    assert [5, 7, 9] == times(running(), running(), DONE, floor=2.0)
    assert [0, 2.5, 5.0] == times(running(50), running(98), DONE, resumed=True, age=10, floor=2.5)


@pytest.mark.parametrize(("before", "progress", "age", "step"), [
    (10, 20, 10, 3.0),      # 60 % of the 40 s left would be 24: three steps at most
    (10, 90, 20, 1.3333),   # 60 % of 2.2 s
    (10, 99, 20, 1.0),      # never less than the shortest step
    (89, 90, 100, 6.6667),  # three steps of 3 s would be 9
    (50, 60, 100, 9.0),
    (4, 5, 20, 3.0),        # from 5 percent
    (3, 4, 20, 1.0),        # below it says nothing
    (0, 5, 20, 3.0),
    (98, 99, 400, 2.4242),  # up to 99
    (99, 100, 400, 3.0),    # 100 and no images says nothing
    (99, 99.5, 400, 3.0),
    (10, 250, 20, 1.0),
    (50, 50, 20, 1.0),      # not moved
    (50, 40, 20, 1.0),      # backwards
    (None, 50, 20, 1.0),    # moved since when?
    (50, None, 20, 1.0),
    (-5, 50, 20, 3.0),
])
def test_a_step_follows_progress_that_moved(before, progress, age, step):
    watch = Watch("t-1", 1000.0 - age, 1000.0, True)
    watch.saw(running(before), 1000.0 - age / 2)
    assert watch.saw(running(progress), 1000.0) is False
    assert step == pytest.approx(watch.due - 1000.0, abs=1e-3)


def test_progress_that_moves_again_after_a_failed_look_is_not_trusted_at_once():
    watch = Watch("t-1", 980.0, 1000.0, True)
    watch.saw(running(30), 1000.0)
    watch.missed(error("network"), 1000.0)
    watch.saw(running(60), 1000.0)
    assert 1001.0 == watch.due


def test_a_fixed_interval_replaces_the_schedule():
    assert [2, 4, 6, 8] == times(running(10), running(50), error("network"), DONE, interval=2.0)
    assert [0, 0.25, 0.5] == times(running(), error("network"), DONE, interval=0.25, resumed=True)


# --- how it ends


def test_a_task_that_is_over_ends_the_waiting_whether_well_or_not():
    for task in (DONE, FAILED):
        over, looks, watch = followed(running(10), task)
        assert (True, 2, task, None) == (over, len(looks), watch.task, watch.trouble)


def test_a_failed_task_is_looked_at_once():
    assert [5.0] == times(FAILED)


def test_a_completed_task_without_images_is_looked_at_four_times():
    over, looks, watch = followed(EMPTY)
    assert (True, [5, 6, 7, 8], EMPTY) == (over, [at for at, _ in looks], watch.task)


def test_images_that_come_late_are_taken():
    over, looks, watch = followed(EMPTY, EMPTY, EMPTY, DONE)
    assert (True, 4, DONE) == (over, len(looks), watch.task)


def test_the_last_look_is_at_the_deadline_itself():
    over, looks, watch = followed(running(), seconds=7.5)
    assert (False, [5, 6, 7, 7.5]) == (over, [at for at, _ in looks])
    assert watch.task == running()


def test_a_deadline_before_the_first_look_still_gives_one():
    assert [2.0] == times(running(), seconds=2)
    assert [0.0] == times(running(), seconds=-5)


def test_what_is_done_at_the_deadline_is_done():
    over, looks, _ = followed(running(), DONE, seconds=5.5)
    assert (True, [5, 5.5]) == (over, [at for at, _ in looks])


def test_a_look_has_fifteen_seconds_and_near_the_deadline_no_less_than_two():
    looks = followed(running(), seconds=30)[1]
    assert [15.0] * 11 == [allowed for at, allowed in looks if at <= 15]
    assert all(allowed == pytest.approx(30 - at) for at, allowed in looks if 15 < at <= 28)
    assert [2.0] == [allowed for at, allowed in looks if at > 28][-1:]
    assert (30.0, 2.0) == looks[-1]


@quick
@given(st.lists(st.one_of(
    st.floats(-10, 300).map(running), st.none().map(running), st.just(EMPTY),
    st.sampled_from(["network", "unavailable"]).map(error),
    st.integers(0, 10**9).map(lambda s: error("unavailable", retry_after_s=s))), min_size=1, max_size=8),
    st.floats(0, 200), st.floats(0, 1000), st.booleans(), st.floats(0, 20))
def test_whatever_the_service_says_the_waiting_ends_within_one_interval_of_its_budget(
        answers, seconds, age, resumed, round_trip):
    clock = Clock()
    watch = Watch("t-1", clock.now() - age, clock.now(), resumed)

    def look(task_id, allowed):
        assert 2 <= allowed <= 15
        clock.time += min(allowed, round_trip)  # whoever looks keeps to what it is allowed
        answer = answers[min(len(looks), len(answers) - 1)]
        looks.append(clock.now())
        assert len(looks) < 400
        if isinstance(answer, Image2Error):
            raise answer
        return answer

    looks = []
    wait_for(watch, look, clock, 1000.0 + seconds)
    assert clock.now() <= 1000 + seconds + 2.0 + 1e-6
    steps = [after - before for before, after in zip(looks, looks[1:])]
    assert all(step >= 1 - 1e-6 for step in steps[:-1])


# --- looks that fail


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("code", ["network", "unavailable", "rate_limited", "rejected", "outcome_unknown",
                                  "insufficient_credits"])
def test_a_failed_look_never_ends_a_task(code, resumed):
    over, looks, watch = followed(*[error(code)] * 50, DONE, seconds=200, resumed=resumed)
    assert (True, 51, DONE, None) == (over, len(looks), watch.task, watch.trouble)


def test_no_news_until_the_deadline_is_told_as_such():
    trouble = error("unavailable")
    over, _, watch = followed(running(40), trouble, seconds=20)
    assert (False, running(40), trouble) == (over, watch.task, watch.trouble)


def test_a_certificate_that_is_refused_once_does_not_end_the_waiting():
    over, _looks, watch = followed(running(), error("tls"), DONE)  # as behind the log-in page of a hotel's network
    assert (True, DONE) == (over, watch.task)


def test_a_certificate_that_is_refused_at_once_ends_a_resumed_waiting():
    final = error("tls")
    watch = Watch("t", 0.0, 100.0, resumed=True)
    with pytest.raises(Image2Error) as caught:
        watch.missed(final, 100.0)
    assert final is caught.value


def test_a_key_that_is_refused_ends_the_waiting():
    final = error("key_rejected")
    with pytest.raises(Image2Error) as caught:
        followed(running(), final)
    assert final is caught.value


def test_a_task_may_be_unknown_for_fifteen_seconds():
    over, looks, watch = followed(*[error("task_not_found")] * 8, DONE)
    assert (True, DONE) == (over, watch.task)
    assert 13.0 == looks[-1][0]


def test_a_lasting_404_ends_the_waiting_after_fifteen_seconds():
    final, clock = error("task_not_found"), Clock()
    watch, script = Watch("t-1", clock.now(), clock.now()), Script(clock, final)
    with pytest.raises(Image2Error) as caught:
        wait_for(watch, script, clock, clock.now() + 100)
    assert (final, final) == (caught.value, watch.trouble)
    assert 16.0 == clock.now() - 1000


def test_exactly_fifteen_seconds_is_still_early():
    watch = Watch("t-1", 1000.0, 1000.0)
    for now in (1013.0, 1014.0, 1015.0):
        watch.missed(error("task_not_found"), now)
    with pytest.raises(Image2Error):
        watch.missed(error("task_not_found"), 1015.5)


def test_an_old_task_is_unknown_only_after_three_looks_in_a_row():
    missing = error("task_not_found")
    assert [0, 3, 6] == times(missing, missing, DONE, resumed=True, age=3600)
    with pytest.raises(Image2Error):
        followed(missing, missing, missing, DONE, resumed=True, age=3600)


@pytest.mark.parametrize("between", [running(), error("unavailable")])
def test_any_other_answer_between_makes_a_404_no_lasting_one(between):
    missing = error("task_not_found")
    over, looks, _ = followed(missing, missing, between, missing, missing, DONE, resumed=True, age=3600)
    assert (True, 6) == (over, len(looks))
    with pytest.raises(Image2Error):
        followed(missing, missing, between, missing, missing, missing, DONE, resumed=True, age=3600)


@pytest.mark.parametrize(("retry_after", "step"),
    [(None, 1.0), (0, 1.0), (0.5, 1.0), (7, 7.0), (60, 60.0), (3600, 60.0)])
def test_a_service_that_asks_to_come_later_is_obeyed_for_up_to_a_minute(retry_after, step):
    watch = Watch("t-1", 990.0, 1000.0, True)
    watch.missed(error("unavailable", retry_after_s=retry_after), 1000.0)
    assert step == watch.due - 1000


def test_a_good_look_takes_trouble_away():
    watch = Watch("t-1", 990.0, 1000.0)
    watch.missed(error("network"), 1000.0)
    assert "network" == watch.trouble.code and watch.task is None
    watch.saw(running(), 1001.0)
    assert watch.trouble is None


def test_every_look_is_told_of_also_a_failed_one():
    clock, told = Clock(), []
    watch, script = Watch("t-1", 1000.0, 1000.0), Script(clock, running(), error("network"), DONE)
    assert wait_for(watch, script, clock, 1100.0, lambda seen: told.append((seen.task, seen.trouble is None))) is True
    assert [(running(), True), (running(), False), (DONE, True)] == told


def test_one_look_at_a_time_says_whether_the_task_is_over():
    clock = Clock()
    watch = Watch("t-1", 1000.0, 1000.0)
    script = Script(clock, running(), error("network"), DONE)
    assert [False, False, True] == [look_once(watch, script, clock, 1100.0) for _ in range(3)]


# --- the figures of the schedule

MEDIAN_S, SIGMA, ROUND_TRIP_S, TASKS = 35.0, 0.35, 0.2, 1500


def simulated(progress, interval=None):
    """Waits for tasks of 35 s (log-normal, round trip 0.2 s): (polls, mean added s, p95 added s, added percent)."""
    dice = random.Random(7)
    polls, added, percents = 0, [], []
    for _ in range(TASKS):
        length = dice.lognormvariate(math.log(MEDIAN_S), SIGMA)
        clock = Clock(0.0)
        watch = Watch("t-1", 0.0, 0.0, interval=interval)

        def look(_task_id, _seconds, clock=clock, length=length):  # bound now: the loop goes on
            seen_at = clock.time + ROUND_TRIP_S / 2
            clock.time += ROUND_TRIP_S
            return DONE if seen_at >= length else running(progress(seen_at / length))

        def count(_watch):
            nonlocal polls
            polls += 1

        assert wait_for(watch, look, clock, 10_000.0, count)
        added.append(clock.now() - length)
        percents.append(100 * added[-1] / length)
    added.sort()
    return (polls / TASKS, statistics.mean(added), added[int(0.95 * TASKS)], statistics.mean(percents))


def test_where_progress_moves_twelve_looks_add_at_most_two_and_a_half_percent():
    polls, mean, p95, percent = simulated(lambda part: int(100 * part))
    assert polls <= 12 and percent <= 2.5 and mean <= 0.9 and p95 <= 1.5, (polls, mean, p95, percent)


@pytest.mark.parametrize("progress",
    [lambda part: None, lambda part: 0, lambda part: 50], ids=["none", "zero", "stuck"])
def test_where_progress_is_useless_the_waiting_adds_at_most_three_and_a_half_percent(progress):
    polls, _, _, percent = simulated(progress)
    assert polls <= 26 and percent <= 3.5, (polls, percent)


@pytest.mark.parametrize("progress",
    [lambda part: int(100 * part**2), lambda part: int(100 * part**0.5), lambda part: 25 * int(4 * part)],
                         ids=["slow start", "fast start", "in quarters"])
def test_progress_that_misleads_costs_little(progress):
    polls, _, _, percent = simulated(progress)
    assert polls <= 20 and percent <= 4.5, (polls, percent)


@pytest.mark.parametrize(("interval", "polls", "percent"), [(1.0, 31.3, 2.15), (2.0, 17.3, 3.7), (5.0, 7.6, 8.2)])
def test_a_fixed_interval_asks_more_or_waits_longer(interval, polls, percent):
    ours = simulated(lambda part: int(100 * part))
    theirs = simulated(lambda part: int(100 * part), interval)
    assert theirs[0] > ours[0] + 3 or theirs[3] > 2 * ours[3]
    assert (polls, percent) == pytest.approx((theirs[0], theirs[3]), rel=0.05)


def test_a_picture_that_a_completed_task_does_not_show_yet_is_waited_for():
    half = Task("t", "completed", 100, (ImageResult(0, "https://image2.test/0.png"), ImageResult(1)))
    whole = half._replace(images=(half.images[0], ImageResult(1, "https://image2.test/1.png")))
    over, looks, watch = followed(half, half, whole)
    assert (True, whole, 3) == (over, watch.task, len(looks))
    one = half._replace(images=half.images[:1])
    assert (1, 4) == (len(followed(one)[1]), len(followed(one, wanted=2)[1]))


@pytest.mark.parametrize("other", [ImageResult(1, status="failed"), ImageResult(1, error="refused")])
def test_a_picture_that_will_not_come_is_not_waited_for(other):
    task = Task("t", "completed", 100, (ImageResult(0, "https://image2.test/0.png"), other))
    over, looks, _watch = followed(task)
    assert (True, 1) == (over, len(looks))
