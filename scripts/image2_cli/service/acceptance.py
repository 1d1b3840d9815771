"""What an exchange means: was the order accepted, refused, never sent, or is that unknown?

Pure. Every spending decision rests on this table, so it is a room of its own. The rule behind it (RFC 9110
section 9.2.2): a POST may be sent again only where it provably was not accepted. Clients that repeated it
after a read timeout had their users billed twice.
"""

from __future__ import annotations

import math
import re
import ssl
import time
from datetime import timezone
from email.utils import parsedate_to_datetime

from ..errors import Image2Error
from .task import NotATask, Task, clean, error_text, find_task_id, parse_task

MOVED = (301, 307, 308)  # by definition not processed here; 302 and 303 may answer a processed POST
# a proxy's own words for "the service was not reached" (Cloudflare's numbers)
NOT_REACHED = (521, 523, 525, 526, 530)
OUT_OF_CREDIT = re.compile(r"quota|balance(?!r)|credit|billing|insufficient|payment", re.I)  # no load balancers
LONGEST_S = 10**9  # of a Retry-After: more would only be more digits
UNKNOWN_ADVICE = ("It may be charged. It is not sent again by itself. Tell the user; only they decide on ordering "
                  "again (--new).")


def of_order(reply) -> Task:
    """The `Task` (or images at once) of a POST's answer. Raises `Image2Error` for every other end."""
    if not 200 <= reply.status < 300:
        raise _not_accepted(reply)
    try:
        task = parse_task(reply.value)
        if task.id or any(image.is_there for image in task.images):
            return task
    except NotATask:
        pass
    task_id = find_task_id(reply.body)
    if task_id:
        return Task(task_id, None, None, ())
    raise Image2Error("outcome_unknown", "The service answered %d, but neither a task id nor images could be read. %s"
                      % (reply.status, UNKNOWN_ADVICE), http_status=reply.status,
                      server_message=server_message(reply))


def of_broken_order(error: BaseException, chain, reply, where: str, nothing_sent: bool, sandbox=None) -> Task:
    """The same for a POST that ended in an exception with this chain of causes; `where` is the host asked.

    `nothing_sent`: no byte of the body was handed to the network. Only then may the chain say so: an answer with two
    Content-Lengths raises the InvalidHeader of a bad request, and such an order was once sent three times.
    """
    if reply.status is not None:
        return of_order(reply)
    if nothing_sent:
        broken = next((one for one in chain if type(one) is ssl.SSLError), None)  # not its kinds, such as an early end
        if broken:
            raise Image2Error("tls", "TLS with %s failed (%s); nothing was sent. Check REQUESTS_CA_BUNDLE and the proxy."
                              % (where, clean(getattr(broken, "reason", None), 60) or "no reason given"))
        raise not_sent(error, chain, where, sandbox) or Image2Error(
            "network", "%s could not be reached (%s); nothing was sent. %s" % (where, _kind(chain), _advice(sandbox)))
    raise Image2Error("outcome_unknown", "The connection broke after the order was sent, before an answer came (%s). %s"
                      % (_kind(chain), UNKNOWN_ADVICE), http_status=reply.status)


def of_look(reply, task_id: str) -> Task:
    """The `Task` a GET answered. Raises `Image2Error`; `retryable` says that looking again may help."""
    if reply.status == 404:
        raise Image2Error("task_not_found", "The service knows no task %s." % task_id, http_status=404,
                          server_message=server_message(reply))
    if reply.status in (401, 403):
        raise _key_rejected(reply, charged="yes")
    if not 200 <= reply.status < 300:
        raise Image2Error("unavailable", "The service answered %d when asked for the task." % reply.status,
                          charged="yes", http_status=reply.status, server_message=server_message(reply),
                          retry_after_s=retry_after(reply.headers.get("Retry-After")))
    try:
        task = parse_task(reply.value)
    except NotATask as error:
        raise Image2Error("unavailable", "The service's answer about the task could not be read (%s)." % error,
                          charged="yes", http_status=reply.status) from None
    if task.id not in (None, task_id):
        raise Image2Error("unavailable", "The service answered about another task.", charged="yes", http_status=reply.status)
    return task._replace(id=task_id)


def of_broken_look(error: BaseException, chain, where: str, sandbox=None) -> Image2Error:
    """The error for a GET that ended in an exception."""
    return not_sent(error, chain, where, sandbox) or Image2Error(
        "network", "The connection to %s broke (%s). Run the same again." % (where, _kind(chain)))


def not_sent(error: BaseException, chain, where: str, sandbox=None):
    """The error for a request that provably never left, by its chain of causes; None where it may have left.

    `requests.ConnectionError` alone tells nothing: it stands for a refused connection and for a reset after
    the order was taken alike.
    """
    from requests import exceptions as outer
    from urllib3 import exceptions as inner

    bad_certificate = next((one for one in chain if isinstance(one, ssl.SSLCertVerificationError)), None)
    if bad_certificate:
        return Image2Error("tls", "The certificate of %s was not accepted (%s); nothing was sent. Behind a company "
                           "proxy, REQUESTS_CA_BUNDLE must name its certificates."
                           % (where, clean(getattr(bad_certificate, "verify_message", ""), 80) or "unverified"))
    if type(error) is OSError:  # requests' own look at the bundle, before it connects
        return Image2Error("tls", "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names a file that is not there; nothing was "
                           "sent. Mend or unset it.")
    if isinstance(error, (outer.InvalidURL, outer.InvalidSchema, outer.InvalidProxyURL, outer.MissingSchema)):
        return Image2Error("network", "The proxy setting or URL cannot be used (%s); nothing was sent. Check HTTPS_PROXY."
                           % type(error).__name__)
    never = (inner.NameResolutionError, inner.NewConnectionError, inner.ConnectTimeoutError, inner.ProxyError)
    if not any(isinstance(one, never) for one in chain):
        return None
    kind = ("the name was not found" if any(isinstance(one, inner.NameResolutionError) for one in chain)
            else "the proxy did not connect" if any(isinstance(one, inner.ProxyError) for one in chain)
            else "no connection")
    return Image2Error("network", "%s could not be reached (%s); nothing was sent. %s" % (where, kind, _advice(sandbox)))


def retry_after(value, now: float = None):
    """`Retry-After` in whole seconds from now, from a number or an HTTP date; None for nonsense and the past.

    `now` is seconds since the epoch; the machine's clock where not given.
    """
    if not isinstance(value, str):
        return None
    number = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*", value)
    seconds = float(number.group(1)) if number else _seconds_until(value, now)
    return min(math.ceil(seconds), LONGEST_S) if seconds is not None and 0 <= seconds < math.inf else None


def server_message(reply):
    """The service's own words in an answer, cleaned and cut; None where it has none (HTML is none)."""
    return error_text(reply.value)


def _not_accepted(reply) -> Image2Error:
    status, words = reply.status, server_message(reply)
    known = {"http_status": status, "server_message": words,
             "retry_after_s": retry_after(reply.headers.get("Retry-After"))}
    if status in (401, 403):
        return _key_rejected(reply)
    if status == 402 or (status == 429 and OUT_OF_CREDIT.search(_text(reply.body))):
        return Image2Error("insufficient_credits", "The account has not enough credits for this order. Tell the user to "
                           "top up, then run the same again.", **known)
    if status == 429:
        return Image2Error("rate_limited", "The service asks to come later (429). Run the same again later.", **known)
    if status == 413:
        return Image2Error("request_too_large", "The order is too large for the service. Use smaller reference images "
                           "or URLs.", **known)
    if status in (404, 405):
        return Image2Error("rejected", "There is no such endpoint (%d). Check IMAGE2_BASE_URL." % status, **known)
    if 400 <= status < 500:
        return Image2Error("rejected", "The service refused this order (%d). Mend the fault that server_message names, "
                           "or tell the user." % status, **known)
    if status in MOVED:
        return Image2Error("rejected", "The service redirects (%d); key and order are not sent elsewhere. Check "
                           "IMAGE2_BASE_URL." % status, **known)
    if status in NOT_REACHED or (status == 503 and (known["retry_after_s"] is not None or words)):
        return Image2Error("unavailable", "The service is not available (%d); the order was not accepted. Run the same "
                           "again later." % status, **known)
    return Image2Error("outcome_unknown", "The service answered %d, which does not tell whether the order was accepted. "
                       "%s" % (status, UNKNOWN_ADVICE), **known)


def _key_rejected(reply, charged="no") -> Image2Error:
    return Image2Error("key_rejected", "The service does not accept the key (%d). Ask the user to check IMAGE2_API_KEY "
                       "and the account at image2.vip." % reply.status, charged=charged, http_status=reply.status,
                       server_message=server_message(reply))


def _advice(sandbox) -> str:
    if sandbox:
        return "%s's sandbox may block the network; ask the user to allow it: %s." % sandbox
    return "Check the network, then run the same again."


def _kind(chain) -> str:
    names = [type(one).__name__ for one in chain]
    if any(name in ("Overdue", "TimeoutError", "timeout", "ReadTimeoutError") for name in names):
        return "no answer in time"
    return "reset" if "ConnectionResetError" in names else names[0]


def _text(body) -> str:
    return bytes(body[:100_000]).decode("utf-8", "replace")


def _seconds_until(date: str, now):
    try:
        when = parsedate_to_datetime(date)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return when.timestamp() - (time.time() if now is None else now)
