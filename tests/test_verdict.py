"""What an exchange means. Every spending decision rests on this table, so each of its rows is a test here."""

import json
import re
import socket
import ssl
import threading
import time
from email.utils import formatdate

import pytest
import trustme
from faulty import HTML, SUBMIT, ConnectProxy, Service, closed_port, cut, full_backlog, hang, ok, refuse, reset
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.clock import Overdue
from image2_cli.errors import CODES, Image2Error
from image2_cli.service import acceptance as verdict
from image2_cli.service import transport
from image2_cli.service.task import NotATask, parse_json
from platforms import needs_linux
from requests.structures import CaseInsensitiveDict

quick = settings(max_examples=150, deadline=None, database=None)
ACCEPTED = {"created": 1, "task_id": "t-1", "status": "pending", "data": [{"url": None, "status": "pending"}]}
AT_ONCE = {"created": 1, "data": [{"url": "https://image2.vip/generations/1.png"}]}
ERROR = {"error": {"message": "busy", "code": "x"}}


def reply(status, body=b"", **headers) -> transport.Reply:
    """An answer as `Api` hands it on."""
    made = transport.Reply()
    made.status, made.headers = status, CaseInsensitiveDict({name.replace("_", "-"): v for name, v in headers.items()})
    made.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        made.value = parse_json(made.body)
    except NotATask:
        made.value = None
    return made


def refusal(judge, *arguments) -> Image2Error:
    with pytest.raises(Image2Error) as caught:
        judge(*arguments)
    assert not re.search("%[a-z]", caught.value.message)
    return caught.value


def facts(error) -> tuple:
    return error.code, error.exit_status, error.charged, error.retryable


REFUSED = ("rejected", 3, "no", False)
TOO_LARGE = ("request_too_large", 3, "no", False)
NO_CREDIT = ("insufficient_credits", 3, "no", False)
NO_KEY = ("key_rejected", 4, "no", False)
LATER = ("rate_limited", 5, "no", True)
AWAY = ("unavailable", 5, "no", True)
NOT_SENT = ("network", 5, "no", True)
TLS = ("tls", 5, "no", False)
UNKNOWN = ("outcome_unknown", 9, "maybe", False)


# --- an answer to an order


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
@pytest.mark.parametrize("body",
    [ACCEPTED, AT_ONCE, {"task_id": "t-1"}, {"task_id": "t-1", "status": "failed"}, {"task_id": 17},
                                  {"data": [{"b64_json": "AAAA"}]}])
def test_any_2xx_with_a_task_id_or_with_images_is_accepted(status, body):
    task = verdict.of_order(reply(status, body))
    assert (str(body["task_id"]) if "task_id" in body else None) == task.id
    assert any(image.is_there for image in task.images) or task.id


@pytest.mark.parametrize("body", [
    b'{"created": 1, "task_id": "t-1", "status": "pen', b'<html>"task_id": "t-1"', b'{"task_id": "t-1"}{"task_id": "t-2"}',
    json.dumps(ACCEPTED).encode("utf-16-le") + b'"task_id":"t-1"', b'{"n": ' + b"9" * 5000 + b', "task_id": "t-1"}'])
def test_a_spoiled_2xx_is_searched_for_its_task_id(body):
    assert ("t-1", None, ()) == verdict.of_order(reply(200, body))[:2] + (verdict.of_order(reply(200, body)).images,)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("body", [
    b"", b"{", b'{"created": 1715881600, "task_i', b'{"task_id": "t-', HTML.encode(), {}, [], "accepted", None,
    {"status": "pending"},
    {"data": []}, {"data": [{"url": None, "status": "pending"}]}, {"task_id": "../../etc"}, {"task_id": None}, ERROR])
def test_a_2xx_without_task_id_and_images_is_unknown_and_never_free(status, body):
    error = refusal(verdict.of_order, reply(status, body))
    assert UNKNOWN == facts(error)
    assert (status, ("busy" if body == ERROR else "accepted" if body == "accepted" else None)) == (
        error.http_status, error.server_message)
    assert "neither a task id nor images" in error.message and "--new" in error.message


TABLE = [
    # refused, final
    (400, ERROR, {}, REFUSED), (404, ERROR, {}, REFUSED), (405, b"", {}, REFUSED), (408, b"", {}, REFUSED),
    (409, ERROR, {}, REFUSED),
    (422, ERROR, {}, REFUSED),
    (400, b"insufficient contrast", {}, REFUSED), (451, HTML.encode(), {}, REFUSED), (499, b"", {}, REFUSED),
    (413, b"", {}, TOO_LARGE),
    (412, b"", {}, REFUSED), (414, b"", {}, REFUSED), (401, ERROR, {}, NO_KEY), (403, HTML.encode(), {}, NO_KEY),
    (402, b"", {}, NO_CREDIT),
    (407, b"", {}, REFUSED), (418, b"", {}, REFUSED),
    # a redirect is not followed, and not processed by definition; 302 and 303 may answer a processed POST
    (301, b"", {}, REFUSED), (307, b"", {}, REFUSED), (308, b"", {}, REFUSED), (302, b"", {}, UNKNOWN),
    (303, b"", {}, UNKNOWN),
    (300, b"", {}, UNKNOWN), (304, b"", {}, UNKNOWN),
    # refused, passing
    (429, ERROR, {}, LATER), (429, b"", {}, LATER), (429, HTML.encode(), {"Retry_After": "3"}, LATER),
    (429, b"the load balancer is busy", {}, LATER),
    (503, b"", {"Retry_After": "3"}, AWAY), (503, HTML.encode(), {"Retry_After": "0"}, AWAY), (503, ERROR, {}, AWAY),
    (503, {"message": "busy"}, {}, AWAY), (503, "busy", {}, AWAY),
    (521, HTML.encode(), {}, AWAY), (523, b"", {}, AWAY), (525, b"", {}, AWAY), (526, b"", {}, AWAY),
    (530, b"", {}, AWAY),
    # a 429 that speaks of money does not pass by itself
    (429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}, {}, NO_CREDIT),
    (429, {"error": "Not enough BALANCE"}, {}, NO_CREDIT), (429, {"code": "credit_exhausted"}, {}, NO_CREDIT),
    (429, b"billing hard limit", {}, NO_CREDIT), (429, b"payment required", {}, NO_CREDIT),
    (429, b"insufficient funds", {}, NO_CREDIT),
    # unknown: something in front of the service says that it did not hear the end
    (500, ERROR, {}, UNKNOWN), (500, b"", {"Retry_After": "3"}, UNKNOWN), (502, HTML.encode(), {}, UNKNOWN),
    (504, ERROR, {}, UNKNOWN),
    (520, b"", {}, UNKNOWN), (522, b"", {}, UNKNOWN), (524, b"", {}, UNKNOWN), (501, b"", {}, UNKNOWN),
    (599, b"", {}, UNKNOWN), (500, b"the credit service failed", {}, UNKNOWN), (504, b"quota service", {}, UNKNOWN),
    (503, HTML.encode(), {}, UNKNOWN), (503, b"", {}, UNKNOWN), (503, b'{"error": {"mess', {}, UNKNOWN),
    (503, {}, {}, UNKNOWN),
    (503, HTML.encode(), {"Retry_After": "soon"}, UNKNOWN), (503, b"", {"Retry_After": "-1"}, UNKNOWN),
    (199, b"", {}, UNKNOWN), (399, b"", {}, UNKNOWN),
    (101, ACCEPTED, {}, UNKNOWN), (600, b"", {}, UNKNOWN), (527, b"", {}, UNKNOWN),
]


@pytest.mark.parametrize(("status", "body", "headers", "expected"), TABLE)
def test_every_refusal_of_an_order_has_its_row(status, body, headers, expected):
    error = refusal(verdict.of_order, reply(status, body, **headers))
    assert expected == facts(error)
    assert status == error.http_status
    assert str(status) in error.message or expected in (TOO_LARGE, NO_CREDIT)


def test_no_answer_but_a_2xx_accepts_an_order_whatever_its_body_says():
    for status in [*range(100, 200), *range(300, 600)]:
        assert refusal(verdict.of_order, reply(status, ACCEPTED, Retry_After="1")).charged in ("no", "maybe")


@pytest.mark.parametrize(("status", "body", "words"), [
    (404, ERROR, "no such endpoint (404). Check IMAGE2_BASE_URL"), (405, ERROR, "no such endpoint (405)"),
    (400, ERROR, "refused this order (400). Mend the fault that server_message names"), (307, b"", "redirects (307)"),
    (401, ERROR, "does not accept the key (401)"), (402, ERROR, "top up"), (429, ERROR, "come later (429)"),
    (413, ERROR, "Use smaller reference images"), (503, ERROR, "not available (503)"),
    (500, ERROR, "does not tell whether")])
def test_every_refusal_says_what_to_do(status, body, words):
    error = refusal(verdict.of_order, reply(status, body, Retry_After="7"))
    assert words in error.message
    if body == ERROR:
        assert "busy" == error.server_message
    assert (None if status == 401 else 7) == error.retry_after_s


@pytest.mark.parametrize("headers", [{"Retry-After": "3"}, {"retry-after": "3"}])
def test_retry_after_is_found_however_the_header_is_spelt(headers):
    made = reply(429)
    made.headers = CaseInsensitiveDict(headers)
    assert 3 == refusal(verdict.of_order, made).retry_after_s


@quick
@given(st.integers(100, 599), st.binary(max_size=80) | st.sampled_from([ACCEPTED, ERROR]),
       st.text(st.characters(codec="latin-1"), max_size=12))
def test_any_answer_is_a_task_or_a_documented_error_with_an_honest_charge(status, body, retry):
    for judge, more in ((verdict.of_order, ()), (verdict.of_look, ("t-1",))):
        try:
            task = judge(reply(status, body, Retry_After=retry), *more)
        except Image2Error as error:
            assert error.code in CODES
            assert error.charged == "maybe" or not 200 <= status < 300 or judge is verdict.of_look
        else:
            assert 200 <= status < 300
            assert task.id or task.images


# --- an answer to a look


def test_a_look_gives_the_task_and_its_id_even_where_the_answer_leaves_it_out():
    assert ("t-1", "pending") == verdict.of_look(reply(200, ACCEPTED), "t-1")[:2]
    assert ("t-9", None) == verdict.of_look(reply(200, AT_ONCE), "t-9")[:2]
    assert ("17", "pending") == verdict.of_look(reply(200, {"task_id": 17, "status": "pending"}), "17")[:2]


@pytest.mark.parametrize("status", [200, 201, 202, 203, 299])
def test_any_2xx_is_an_answer_to_a_look(status):
    assert "pending" == verdict.of_look(reply(status, ACCEPTED), "t-1").status


def test_an_answer_about_another_task_is_not_used():
    error = refusal(verdict.of_look, reply(202, ACCEPTED), "t-2")
    assert ("unavailable", "yes", 202) == (error.code, error.charged, error.http_status)
    assert "another task" in error.message


@pytest.mark.parametrize("body", [b"", HTML.encode(), b"{", {}, [], b'{"task_id": "t-1", "stat'])
def test_an_answer_to_a_look_that_cannot_be_read_ends_nothing(body):
    error = refusal(verdict.of_look, reply(203, body), "t-1")
    assert ("unavailable", "yes", True, 203) == (error.code, error.charged, error.retryable, error.http_status)


@pytest.mark.parametrize("status", [199, 300, 301, 302, 307, 400, 402, 405, 429, 500, 502, 503, 504, 524])
def test_a_look_that_is_refused_ends_nothing(status):
    error = refusal(verdict.of_look, reply(status, ERROR, Retry_After="7"), "t-1")
    assert ("unavailable", "yes", True) == (error.code, error.charged, error.retryable)
    assert (status, 7, "busy") == (error.http_status, error.retry_after_s, error.server_message)
    assert str(status) in error.message


@pytest.mark.parametrize("status", [401, 403])
def test_a_look_with_a_key_that_is_not_accepted_says_so_and_the_order_stays_paid(status):
    error = refusal(verdict.of_look, reply(status, ERROR), "t-1")
    assert ("key_rejected", "yes", status, "busy") == (error.code, error.charged, error.http_status, error.server_message)


def test_a_task_that_is_not_known_is_named():
    error = refusal(verdict.of_look, reply(404, ERROR), "t-1")
    assert ("task_not_found", "maybe", 404, "busy") == (error.code, error.charged, error.http_status, error.server_message)
    assert "t-1" in error.message


# --- Retry-After

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("value", "expected"), [
    ("0", 0), ("3", 3), ("120", 120), (" 7 ", 7), ("2.2", 3), ("3.", 3), ("0.0", 0), ("007", 7),
    ("1" + "0" * 9, 10**9),
    ("9" * 300, 10**9), (formatdate(NOW + 90, usegmt=True), 90), (formatdate(NOW, usegmt=True), 0),
    ("Fri, 15 Jan 2027 10:01:00 +0200", 60), ("Fri, 15 Jan 2027 08:00:30", 30),
    ("Friday, 15-Jan-27 08:00:10 GMT", 10),
    ("Fri, 31 Dec 9999 23:59:59 GMT", 10**9)])
def test_retry_after_is_seconds_or_a_date(value, expected):
    seconds = verdict.retry_after(value, NOW)
    assert (expected, int) == (seconds, type(seconds))


@pytest.mark.parametrize("value", [
    None, "", " ", "-1", "-0.5", "+3", "nan", "NaN", "inf", "Infinity", "-inf", "1e3", "1_000", "0x10", "3 s",
    "3, 3", "soon", "٣", "9" * 400,
    formatdate(NOW - 1, usegmt=True), "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 32 Jan 2027 08:00:00 GMT",
    "Fri, 15 Jan 2027 99:00:00 GMT",
    "Fri, 15 Jan 99999 08:00:00 GMT", "2027-01-15T08:01:00Z", 3, 3.0, b"3", ["3"]])
def test_any_other_retry_after_is_ignored(value):
    assert verdict.retry_after(value, NOW) is None


def test_a_date_is_measured_against_this_machines_clock():
    assert verdict.retry_after(formatdate(time.time() + 30, usegmt=True)) in (29, 30)


@quick
@given(st.text(max_size=30)
       | st.from_regex(r"\w{3}, \d{1,2} \w{3} \d{1,5} \d{1,2}:\d\d:\d\d ([+-]\d{4}|GMT)?", fullmatch=True)
       | st.dates().map(lambda day: day.strftime("%a, %d %b %Y 00:00:00 -0000")))
def test_any_retry_after_is_a_bounded_number_of_seconds_or_none(value):
    seconds = verdict.retry_after(value, NOW)
    assert seconds is None or (type(seconds) is int and 0 <= seconds <= 10**9)


# --- an exchange that broke, on real sockets


@pytest.fixture
def post(monkeypatch):
    """POST for real and judge the exception: (the error, or the Task; what `nothing_sent` was)."""
    def attempt(base_url, silence=3.0, proxy=None, verify=True, sandbox=None, connect=5.0):
        monkeypatch.setattr(transport, "CONNECT_S", connect)
        session = transport.new_session(use_proxies=True)
        session.proxies = {"https": proxy} if proxy else {}
        session.verify = verify
        said, body = transport.Reply(), transport.Body(b'{"prompt": "a cat"}')
        with pytest.raises(Exception) as caught:
            transport.exchange(session, "POST", base_url + SUBMIT, said, 10**6, data=body, silence=silence)
        nothing_sent = body.withdraw()
        try:
            said.value = parse_json(said.body)
        except NotATask:
            said.value = None
        try:
            chain = transport.causes(caught.value)
            end = verdict.of_broken_order(caught.value, chain, said, "image2.test", nothing_sent, sandbox)
        except Image2Error as error:
            assert not re.search("%[a-z]", error.message)
            end = error
        return end, nothing_sent

    return attempt


def test_a_refused_connection_sent_nothing(post):
    with closed_port() as base_url:
        error, nothing_sent = post(base_url)
    assert (NOT_SENT, True) == (facts(error), nothing_sent)
    assert "image2.test could not be reached (no connection); nothing was sent. Check the network" in error.message


@needs_linux
def test_a_connection_that_never_stands_sent_nothing(post):
    with full_backlog() as base_url:
        error, nothing_sent = post(base_url, connect=0.3)
    assert (NOT_SENT, True) == (facts(error), nothing_sent)
    assert "(no connection)" in error.message


def test_a_name_that_is_not_found_sent_nothing_and_a_hosts_sandbox_is_named(post):
    error, nothing_sent = post("http://no-such-name.invalid", sandbox=("Codex", "a setting"))
    assert (NOT_SENT, True) == (facts(error), nothing_sent)
    assert "(the name was not found); nothing was sent. Codex's sandbox may block the network" in error.message
    assert error.message.endswith("ask the user to allow it: a setting.")


@pytest.mark.parametrize("base_url", ["http://" + "x" * 64 + ".example", "http://a..b"])
def test_a_host_that_cannot_be_a_name_sent_nothing(post, base_url):
    error, nothing_sent = post(base_url)
    assert (NOT_SENT, True) == (facts(error), nothing_sent)
    assert "nothing was sent" in error.message


@pytest.mark.parametrize(("fault", "words"), [
    ("403", "(the proxy did not connect)"), ("407", "(the proxy did not connect)"),
    ("502", "(the proxy did not connect)"),
    ("closed", "(the proxy did not connect)"), ("hangs up", "could not be reached"),
    ("silent", "(no answer in time)"),
    ("no url", "Check HTTPS_PROXY")])
def test_a_proxy_that_does_not_connect_sent_nothing(post, fault, words):
    if fault == "closed":
        with closed_port() as url:
            error, nothing_sent = post("https://image2.test", proxy=url)
    elif fault == "no url":
        error, nothing_sent = post("https://image2.test", proxy="http://[::1")
    else:
        status, silence = int(fault) if fault.isdigit() else 200, 2 if fault == "silent" else 0
        with ConnectProxy(None, status=status, silence=silence) as proxy:
            error, nothing_sent = post("https://image2.test", proxy=proxy.url, connect=0.3 if silence else 5.0)
    assert (NOT_SENT, True) == (facts(error), nothing_sent)
    assert words in error.message and "nothing was sent" in error.message


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(authority):
    def serve(name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return Service(tls=context)

    return serve


def test_a_certificate_of_an_unknown_authority_is_tls_and_never_tried_again(post, secure):
    with secure("127.0.0.1") as service:
        error, nothing_sent = post(service.base_url)
        assert 0 == service.received
    assert (TLS, True) == (facts(error), nothing_sent)
    assert "image2.test" in error.message and "self-signed" in error.message.replace("self signed", "self-signed") \
        or "unable to get local issuer" in error.message
    assert "REQUESTS_CA_BUNDLE" in error.message


def test_a_certificate_of_another_host_is_tls(post, secure, authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with secure("other.example") as service:
        error, nothing_sent = post(service.base_url, verify=str(tmp_path / "ca.pem"))
        assert 0 == service.received
    assert (TLS, True) == (facts(error), nothing_sent)
    assert "mismatch" in error.message


def test_a_bundle_that_is_not_there_is_tls(post, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    error, nothing_sent = post("https://127.0.0.1:1")
    assert (TLS, True) == (facts(error), nothing_sent)
    assert "a file that is not there" in error.message


def test_a_service_that_speaks_no_tls_got_nothing(post):
    with Service() as service:
        error, nothing_sent = post(service.base_url.replace("http:", "https:"), connect=0.5)
        assert 0 == service.received
    assert (NOT_SENT, True) == (facts(error), nothing_sent)
    assert "nothing was sent" in error.message


def test_a_peer_that_answers_tls_with_something_else_got_nothing_and_is_not_tried_again(post):
    def answer_plainly(listener):
        with listener.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = threading.Thread(target=answer_plainly, args=(listener,))
        peer.start()
        error, nothing_sent = post("https://127.0.0.1:%d" % listener.getsockname()[1])
        peer.join(5)
    assert (TLS, True) == (facts(error), nothing_sent)
    assert "TLS with image2.test failed (" in error.message and "nothing was sent" in error.message


def test_a_tls_fault_without_a_reason_is_said_so():
    assert "(no reason given)" in broken(ssl.SSLError("odd"), True).message
    assert UNKNOWN == facts(broken(ssl.SSLError("odd"), False))


GARBAGE = ok().but(raw=b"SSH-2.0-OpenSSH_9.9\r\n")
TWO_LENGTHS = ok().but(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ")


@pytest.mark.parametrize(("answer", "words"), [
    (reset(), "(reset)"), (cut(ok(), 0), "broke after the order was sent"), (hang(3), "(no answer in time)"),
    (hang(3, at=10), "(no answer in time)"), (reset(ok(), 12), "broke"), (GARBAGE, "broke after the order was sent"),
    (TWO_LENGTHS, "")],
    ids=["reset", "closed", "hang", "hang in the head", "reset in the head", "no http", "two lengths"])
def test_what_breaks_after_the_order_was_sent_is_unknown(post, answer, words):
    with Service() as service:
        service.on_post(answer)
        error, nothing_sent = post(service.base_url, silence=0.4 if answer.hang else 3)
        assert 1 == service.received
    assert (UNKNOWN, False) == (facts(error), nothing_sent)
    assert words in error.message and "--new" in error.message


def test_what_breaks_under_tls_after_the_order_was_sent_is_unknown(post, secure, authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for answer in (reset(), cut(ok(), 0), hang(3)):
        with secure("127.0.0.1") as service, ConnectProxy(service.address) as proxy:
            service.on_post(answer)
            for through in (None, proxy.url):
                error, nothing_sent = post(service.base_url, 0.6 if answer.hang else 3, through, str(tmp_path / "ca.pem"))
                assert (UNKNOWN, False) == (facts(error), nothing_sent)


@pytest.mark.parametrize("spoil", [reset, cut, lambda answer, at: hang(3, answer, at)], ids=["reset", "cut", "hang"])
def test_a_cut_2xx_is_accepted_where_the_task_id_had_come(post, spoil):
    with Service() as service:
        service.on_post(spoil(ok("t-1"), -5))
        task, nothing_sent = post(service.base_url, silence=0.6)
        assert ("t-1", False) == (task.id, nothing_sent)
        service.on_post(spoil(ok("t-1"), "head"))
        error, _ = post(service.base_url, silence=0.6)
        assert (UNKNOWN, 200) == (facts(error), error.http_status)


@pytest.mark.parametrize(("answer", "expected"), [
    (refuse(400), REFUSED), (refuse(401), NO_KEY), (refuse(429), LATER), (refuse(503, retry_after=3), AWAY),
    (refuse(503), UNKNOWN),
    (refuse(502), UNKNOWN)])
def test_a_cut_refusal_is_the_refusal_its_head_told(post, answer, expected):
    with Service() as service:
        service.on_post(cut(answer, "head").but(accepted=False))
        error, _ = post(service.base_url)
    assert expected == facts(error)


# --- an exchange that broke, judged by its chain


def broken(error, nothing_sent, sandbox=None):
    return refusal(verdict.of_broken_order, error, [error], transport.Reply(), "image2.test", nothing_sent, sandbox)


@pytest.mark.parametrize("error",
    [Overdue(), ValueError("withdrawn"), RuntimeError("can't start new thread"), TimeoutError()])
def test_whatever_the_exception_an_order_of_which_nothing_was_sent_is_free(error):
    assert NOT_SENT == facts(broken(error, True))
    assert UNKNOWN == facts(broken(error, False))


def test_an_exception_that_looks_like_not_sent_proves_nothing_once_the_body_has_begun():
    from requests.exceptions import InvalidHeader
    from urllib3.exceptions import NewConnectionError

    for error in (InvalidHeader("two Content-Lengths"), NewConnectionError(None, "refused"), OSError("no such bundle")):
        assert UNKNOWN == facts(broken(error, False))
        assert "no" == broken(error, True).charged


@pytest.mark.parametrize(("error", "words"), [
    (Overdue(), "no answer in time"), (TimeoutError(), "no answer in time"), (ConnectionResetError(), "reset"),
    (ValueError(), "ValueError")])
def test_an_unknown_end_says_how_it_came(error, words):
    assert f"({words})" in broken(error, False).message
    assert f"({words})" in verdict.of_broken_look(error, [error], "image2.test").message


def test_the_outermost_exception_names_an_end_that_says_nothing_else():
    chain = [ValueError(), KeyError(), OSError()]
    assert "(ValueError)" in verdict.of_broken_look(chain[0], chain, "image2.test").message
    assert "(reset)" in verdict.of_broken_look(chain[0], [*chain, ConnectionResetError()], "image2.test").message
    assert "(no answer in time)" in verdict.of_broken_look(chain[0], [*chain, Overdue()], "image2.test").message


def test_the_advice_names_the_hosts_sandbox():
    assert "Codex's sandbox may block the network" in broken(Overdue(), True, ("Codex", "a setting")).message
    assert "Check the network" in broken(Overdue(), True).message


def test_a_broken_look_may_be_made_again():
    with closed_port() as base_url:
        session = transport.new_session(use_proxies=False)
        with pytest.raises(Exception) as caught:
            transport.exchange(session, "GET", base_url + "/x", transport.Reply(), 100)
    error = verdict.of_broken_look(caught.value, transport.causes(caught.value), "image2.test")
    assert NOT_SENT == facts(error) and "could not be reached" in error.message
    error = verdict.of_broken_look(ConnectionResetError(), [ConnectionResetError()], "image2.test")
    assert NOT_SENT == facts(error) and "broke (reset)" in error.message
