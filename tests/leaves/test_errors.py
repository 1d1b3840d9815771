"""The family of errors: a closed set of codes, each with one exit status, what it may have cost, and whether to retry."""

from __future__ import annotations

import pytest
from image2_cli.errors import CODES, Image2Error

# code: exit status, charged, retryable, does `next` go on for nothing
TABLE = {
    "internal": (1, "maybe", False, True),
    "usage": (2, "no", False, False),
    "output_not_writable": (2, "no", False, False),
    "too_many_images": (2, "no", False, False),
    "missing_dependency": (2, "no", False, False),
    "rejected": (3, "no", False, False),
    "request_too_large": (3, "no", False, False),
    "insufficient_credits": (3, "no", False, False),
    "task_not_found": (3, "maybe", False, False),
    "missing_key": (4, "no", False, True),
    "malformed_key": (4, "no", False, True),
    "key_rejected": (4, "no", False, True),
    "network": (5, "no", True, True),
    "tls": (5, "no", False, True),
    "rate_limited": (5, "no", True, True),
    "unavailable": (5, "no", True, True),
    "task_failed": (6, "maybe", False, False),
    "some_failed": (7, "yes", False, False),
    "still_running": (8, "yes", True, True),
    "outcome_unknown": (9, "maybe", False, False),
    "not_saved": (10, "yes", True, True),
    "no_images": (10, "yes", True, True),
    "damaged": (10, "yes", False, False),
    "interrupted": (130, "no", True, True),
    "terminated": (143, "no", True, True),
}


def test_the_set_of_codes_is_closed_and_only_what_goes_on_for_nothing_is_retryable():
    assert set(TABLE) == set(CODES)
    assert [] == [name for name, code in CODES.items() if code.retryable and (code.charged == "maybe" or not code.resumes)]
    with pytest.raises(KeyError):
        Image2Error("no_such_code", "words")


@pytest.mark.parametrize("code", TABLE)
def test_a_code_has_one_exit_status_one_charge_and_one_answer_to_trying_again(code):
    error = Image2Error(code, "words")
    assert TABLE[code] == CODES[code] == (error.exit_status, error.charged, error.retryable, error.resumes)
    assert (code, "words", "words") == (error.code, error.message, str(error))
    assert {"code": code, "message": "words", "retryable": TABLE[code][2]} == error.as_json()


def test_the_answers_object_names_what_is_known_even_a_zero():
    error = Image2Error("rate_limited", "words", http_status=429, retry_after_s=0, server_message="slow", remedy="cmd")
    assert (429, 0, "slow", "cmd") == (error.http_status, error.retry_after_s, error.server_message, error.remedy)
    assert {"code": "rate_limited", "message": "words", "retryable": True, "http_status": 429, "retry_after_s": 0,
            "server_message": "slow"} == error.as_json()


def test_whoever_raises_may_know_better_what_it_cost_and_alone_says_that_it_may_go_out_again():
    assert ("yes", "no") == (Image2Error("network", "words", charged="yes").charged, Image2Error("network", "words").charged)
    assert {False} == {Image2Error(code, "words").may_resend for code in CODES}
    assert Image2Error("unavailable", "words", may_resend=True).may_resend
