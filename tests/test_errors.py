"""The family of errors: a closed set of codes, each with one exit status, what it may have cost, and whether to retry."""

import pytest
from image2_cli import errors
from image2_cli.errors import CODES, Image2Error, of_image

# the exit statuses of the answer's table, by name
EXITS = {
    "OK": 0, "INTERNAL": 1, "USAGE": 2, "REJECTED": 3, "AUTH": 4, "UNAVAILABLE": 5, "FAILED": 6, "PARTIAL": 7,
    "PENDING": 8, "UNKNOWN": 9, "NOT_SAVED": 10, "INTERRUPTED": 130, "TERMINATED": 143,
}
TABLE = {
    "internal": (1, "maybe", False),
    "usage": (2, "no", False),
    "output_not_writable": (2, "no", False),
    "too_many_images": (2, "no", False),
    "missing_dependency": (2, "no", False),
    "rejected": (3, "no", False),
    "request_too_large": (3, "no", False),
    "insufficient_credits": (3, "no", False),
    "task_not_found": (3, "maybe", False),
    "missing_key": (4, "no", False),
    "malformed_key": (4, "no", False),
    "key_rejected": (4, "no", False),
    "network": (5, "no", True),
    "tls": (5, "no", False),
    "rate_limited": (5, "no", True),
    "unavailable": (5, "no", True),
    "task_failed": (6, "maybe", False),
    "some_failed": (7, "yes", False),
    "still_running": (8, "yes", True),
    "outcome_unknown": (9, "maybe", False),
    "not_saved": (10, "yes", True),
    "no_images": (10, "yes", True),
    "interrupted": (130, "no", True),
    "terminated": (143, "no", True),
}


@pytest.mark.parametrize("name", EXITS)
def test_every_exit_status_has_its_name(name):
    assert EXITS[name] == getattr(errors, name)


def test_the_set_of_codes_is_closed():
    assert set(TABLE) == set(CODES)
    with pytest.raises(KeyError):
        Image2Error("no_such_code", "words")


@pytest.mark.parametrize("code", TABLE)
def test_a_code_has_one_exit_status_one_charge_and_one_answer_to_trying_again(code):
    error = Image2Error(code, "words")
    assert TABLE[code] == CODES[code] == (error.exit_status, error.charged, error.retryable)
    assert (code, "words", "words") == (error.code, error.message, str(error))


@pytest.mark.parametrize("code", TABLE)
def test_the_answers_object_leaves_out_what_is_not_known(code):
    assert {"code": code, "message": "words", "retryable": TABLE[code][2]} == Image2Error(code, "words").as_json()


def test_the_answers_object_names_what_is_known_even_a_zero():
    error = Image2Error("rate_limited", "words", http_status=429, retry_after_s=0, server_message="slow")
    assert (429, 0, "slow") == (error.http_status, error.retry_after_s, error.server_message)
    assert {"code": "rate_limited", "message": "words", "retryable": True, "http_status": 429, "retry_after_s": 0,
            "server_message": "slow"} == error.as_json()


def test_whoever_raises_may_know_better_what_it_cost():
    assert "yes" == Image2Error("network", "words", charged="yes").charged
    assert "no" == Image2Error("network", "words").charged


def test_an_order_of_unknown_fate_is_never_called_retryable():
    assert [] == [code for code, (_, charged, retryable) in CODES.items() if charged == "maybe" and retryable]


def test_an_image_has_words_of_the_service_only_where_there_are_some():
    assert {"code": "not_saved", "message": "ours"} == of_image("not_saved", "ours") == of_image("not_saved", "ours", "")
    told = of_image("task_failed", "ours", "theirs")
    assert {"code": "task_failed", "message": "ours", "server_message": "theirs"} == told
