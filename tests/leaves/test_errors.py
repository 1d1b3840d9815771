"""The family of errors: a closed set of codes, each with one exit status, what it may have cost, and whether to retry."""

from __future__ import annotations

import pytest
from image2_cli.errors import CODES, Image2Error

# codes after which `next` goes on for nothing; their statuses, charges and retries stand in cli.md, which a test reads
RESUMES = {"internal", "missing_key", "malformed_key", "key_rejected", "network", "tls", "rate_limited", "unavailable",
           "still_running", "not_saved", "no_images", "interrupted", "terminated"}


def test_the_set_of_codes_is_closed_and_only_what_goes_on_for_nothing_is_retryable():
    assert {name for name, code in CODES.items() if code.resumes} == RESUMES
    assert [] == [name for name, code in CODES.items() if code.retryable and (code.charged == "maybe" or not code.resumes)]
    with pytest.raises(KeyError):
        Image2Error("no_such_code", "words")


@pytest.mark.parametrize("code", CODES)
def test_an_error_is_what_its_code_says(code):
    error = Image2Error(code, "words")
    assert CODES[code] == (error.exit_status, error.charged, error.retryable, error.resumes)
    assert (code, "words", "words") == (error.code, error.message, str(error))
    assert {"code": code, "message": "words", "retryable": CODES[code].retryable} == error.as_json()


def test_the_answers_object_names_what_is_known_even_a_zero():
    error = Image2Error("rate_limited", "words", http_status=429, retry_after_s=0, server_message="slow", remedy="cmd")
    assert (429, 0, "slow", "cmd") == (error.http_status, error.retry_after_s, error.server_message, error.remedy)
    assert {"code": "rate_limited", "message": "words", "retryable": True, "http_status": 429, "retry_after_s": 0,
            "server_message": "slow"} == error.as_json()


def test_whoever_raises_may_know_better_what_it_cost_and_alone_says_that_it_may_go_out_again():
    assert ("yes", "no") == (Image2Error("network", "words", charged="yes").charged, Image2Error("network", "words").charged)
    assert {False} == {Image2Error(code, "words").may_resend for code in CODES}
    assert Image2Error("unavailable", "words", may_resend=True).may_resend
