"""What an answer means: was the order accepted, refused, never sent, or is that unknown?

Pure. The rule behind it (RFC 9110 section 9.2.2): a POST may be sent again only where it provably was not accepted.
Clients that repeated it after a read timeout had their users billed twice. `may_resend` is decided here and nowhere else.
"""

from __future__ import annotations

import re
import ssl
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple, Type

from ..errors import HostSandbox, Image2Error
from ..text import clean
from .task import NotATask, Task, UnusableId, error_text, explicit_error, find_task_id, parse_task
from .transport import Reply, causes, retry_after


class Row(NamedTuple):
    """One end of an order: its error, what it may have cost, whether the POST may go out again by itself."""

    code: str
    charged: str
    may_resend: bool
    numbers: Tuple[int, ...] = ()  # that mean it by themselves


SPENDING = {
    # means             error code              charged  again  by its number alone
    "key":         Row("key_rejected",         "no",    False, (401,)),
    "credit":      Row("insufficient_credits", "no",    False, (402,)),
    "order":       Row("rejected",             "no",    False),  # and any other 4xx
    "too large":   Row("request_too_large",    "no",    False, (413,)),
    "address":     Row("rejected",             "no",    False, (404, 405)),
    "redirect":    Row("rejected",             "no",    False, (301, 307, 308)),  # 302 and 303 may follow a success
    "gateway":     Row("unavailable",          "no",    False),
    "cut short":   Row("unavailable",          "no",    False, (408,)),
    "not taken":   Row("unavailable",          "no",    True,  (425, 521, 523, 525, 526, 530)),  # from 520 Cloudflare's
    "throttled":   Row("rate_limited",         "no",    True,  (429,)),
    "at work":     Row("rejected",             "maybe", False, (409, 499)),
    "unknown":     Row("outcome_unknown",      "maybe", False),  # and any other number
}
BY_NUMBER = {number: meaning for meaning, row in SPENDING.items() for number in row.numbers}
MESSAGES = {
    "key": "The service does not accept the key ({status}). Ask the user to check IMAGE2_API_KEY at image2.vip.",
    "credit": "The account has not enough credits for this order. Tell the user to top up, {then}.",
    "order": "The service refused this order ({status}). {mend}",
    "too large": "The order is too large for the service ({status}). Use smaller reference images or URLs.",
    "address": "There is no such endpoint ({status}). Check IMAGE2_BASE_URL.",
    "redirect": "The service redirects ({status}); key and order are not sent elsewhere. Check IMAGE2_BASE_URL.",
    "gateway": "A gateway's page ({status}), not the service, answered; nothing was accepted. Run the same again later.",
    "cut short": "The service did not take the order in ({status}). Run the same again.",
    "not taken": "The service did not take the order ({status}). Run the same again later.",
    "throttled": "The service asks to come later ({status}). Run the same again later.",
    "at work": "The service answered {status}: it may be at work on this order all the same. Tell the user.",
    "unknown": "Whether the order was accepted is not known: {what}. It may be charged. It is not sent again by itself. "
               "Tell the user; only they decide on ordering again (--new).",
}

# What the words of a refusal are about. `quota` alone is no credit: Google says so of three images a minute.
_MONEY = r"\b(credits?|(?<!load )balance|funds)\b"
TOPICS = {
    "credit": re.compile(rf"\b(insufficient|not enough|out of|exhausted|lacks?) (\w+ ){{0,4}}{_MONEY}"
                         rf"|\bno (more |remaining |enough )?{_MONEY}"
                         rf"|{_MONEY} (\w+ ){{0,3}}(insufficient|not enough|low|exhausted|used up|depleted|empty)"
                         r"|insufficient (user |account )?quota|token quota failed|billing (hard limit|not active)"
                         r"|payment required|arrearage|top[ -]up|recharge|余额|额度不足|积分不足|欠费", re.I),
    "policy": re.compile(r"moderat|content[ -]?(policy|filter)|policy violation|usage polic|safety|unsafe|flagged|nsfw"
                         r"|sensitive (content|words?)|blocked prompt|prompt (\w+ ){0,3}blocked|敏感|违规|审核", re.I),
    "model": re.compile(r"\bmodels?\b|模型", re.I),
    "image": re.compile(r"image|picture|url|data:|base64|图", re.I),
}


class Broken(NamedTuple):
    """An exchange that ended in an exception: with which host, by the proxy of which setting, inside which sandbox.

    `nothing_sent`: no byte of an order was handed to the network. Its causes alone do not prove that: an answer with two
    Content-Lengths raises the InvalidHeader of a bad request.
    """

    error: BaseException
    nothing_sent: bool
    where: str
    proxy: Optional[str]
    host_sandbox: Optional[HostSandbox]


def of_order(reply: Reply, had_local_image: bool, broken: Optional[Broken] = None) -> Task:
    """The `Task` (or images at once) of a POST's answer. Raises `Image2Error` for every other end."""
    if broken and reply.status is None:
        if broken.nothing_sent:
            raise _no_answer(broken)
        what = f"the connection broke before an answer came ({_what_broke(causes(broken.error))})"
        raise _end(reply, "unknown", what=what)
    if reply.is_2xx:
        try:
            task = parse_task(reply.value)
            if task.id or any(image.is_there for image in task.images):
                return task
        except UnusableId as reason:
            raise _end(reply, "unknown", what=f"the service answered {reply.status}, but {reason}") from None
        except NotATask:
            pass
    end = _end(reply, _meaning(reply), had_local_image)
    task_id = find_task_id(reply.body) if end.charged == "maybe" else None
    if task_id:  # in a cut answer, or in a gateway's 504 around the service's own: polling turns a loss into a success
        return Task(task_id, None, None, ())
    raise end


def of_look(reply: Reply, task_id: str, broken: Optional[Broken] = None) -> Task:
    """The `Task` a GET answered, always with an id. Raises `Image2Error`, which ends no task and says nothing of money."""
    if broken and reply.status is None:
        raise _no_answer(broken)
    if reply.status == 404:
        raise _error(reply, "task_not_found", f"The service knows no task {task_id}.")
    if not reply.is_2xx:
        if _meaning(reply) == "key":
            raise _end(reply, "key")
        raise _error(reply, "unavailable", f"The service answered {reply.status} when asked for the task.")
    try:
        task = parse_task(reply.value)
    except NotATask as reason:
        words = explicit_error(reply.value)
        if words is not None:
            return Task(task_id, None, None, (), words)
        raise _error(reply, "unavailable", f"The service's answer about the task could not be read ({reason}).") from None
    if task.id not in (None, task_id):
        raise _error(reply, "unavailable", "The service answered about another task.")
    return task._replace(id=task_id)


def server_message(reply: Reply) -> Optional[str]:
    """The service's own words in an answer, cleaned and cut; None where it has none (HTML is none)."""
    return error_text(reply.value) or clean(reply.words)


def _meaning(reply: Reply) -> str:
    """What an answer without a task means: by its number, unless its words or headers say more."""
    status, has_time = reply.status or 0, retry_after(reply.headers) is not None
    if reply.is_2xx and explicit_error(reply.value) is not None:
        return "credit" if _is_about(reply, "credit") else "order"
    if status == 403:
        if reply.is_page:
            return "gateway"
        if _is_about(reply, "policy"):
            return "order"
        return "credit" if _is_about(reply, "credit") else "key"
    if (status in (400, 422) and _is_about(reply, "credit", codes_only=True)  # its message may quote the prompt
            or status == 429 and not has_time and _is_about(reply, "credit")):
        return "credit"
    if status == 503 and has_time:
        return "not taken"
    if status in (404, 405) and isinstance(reply.value, (dict, list)) and server_message(reply):
        return "order"
    return BY_NUMBER.get(status, "order" if 400 <= status < 500 else "unknown")


def _end(reply: Reply, meaning: str, had_local_image: bool = False, what: str = "") -> Image2Error:
    """The error of an order whose answer has this meaning; `what` happened is said where that is unknown."""
    row = SPENDING[meaning]
    if not what:
        what = f"the service answered {reply.status}" + (" with neither a task id nor images" if reply.is_2xx else "")
    charged = "maybe" if reply.is_2xx else row.charged  # whether a refusal in a 2xx costs, nobody says
    then = "then add --new: charged or not, the same sends nothing" if reply.is_2xx else "then run the same again"
    message = MESSAGES[meaning].format(status=reply.status, what=what, mend=_mend(reply, had_local_image), then=then)
    return _error(reply, row.code, message, charged, row.may_resend)


def _error(reply: Reply, code: str, message: str, charged: Optional[str] = None, may_resend: bool = False) -> Image2Error:
    return Image2Error(code, message, charged=charged, may_resend=may_resend, http_status=reply.status,
                       retry_after_s=retry_after(reply.headers), server_message=server_message(reply))


def _mend(reply: Reply, had_local_image: bool) -> str:
    advice = ("Mend the fault that server_message names, or tell the user." if server_message(reply) else
              "It gave no reason. Check the order against the service's page, or tell the user.")
    if _is_about(reply, "model", codes_only=reply.status != 404):
        advice += " Check --model."
    elif reply.status in (404, 405):
        advice += " If that is about the address, check IMAGE2_BASE_URL."
    if had_local_image and _is_about(reply, "image"):
        advice += " A URL may work where a local file as --image does not."
    return advice


def _is_about(reply: Reply, topic: str, codes_only: bool = False) -> bool:
    """Is the refusal about this? The one place that reads a refusal's words."""
    texts = list(_codes(reply.value))
    if not codes_only:
        texts.append(error_text(reply.value, 2000) or reply.words or "")
    return any(TOPICS[topic].search(text) for text in texts)


def _codes(value: Any) -> Iterator[str]:
    """The code fields of an answer as words: `insufficient_quota` and `InsufficientQuota` are one."""
    if not isinstance(value, dict):
        return
    for fields in (value, value.get("error"), value.get("data"), value.get("detail")):
        for name in ("code", "type", "status", "error"):
            text = fields.get(name) if isinstance(fields, dict) else None
            if isinstance(text, str) and len(text) <= 80 and " " not in text:
                yield re.sub(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])", " ", text)


KINDS = {  # of an error, and how an exchange broke that it ended
    "NameResolutionError": "the name was not found", "NewConnectionError": "no connection",
    "ConnectTimeoutError": "no connection", "Overdue": "no answer in time", "TimeoutError": "no answer in time",
    "timeout": "no answer in time", "ReadTimeoutError": "no answer in time", "ConnectionResetError": "reset",
    "RemoteDisconnected": "closed without an answer"}


def _what_broke(chain: List[BaseException]) -> str:
    names = [type(one).__name__ for one in chain]
    return next((words for kind, words in KINDS.items() if kind in names), names[0])


def _no_answer(broken: Broken) -> Image2Error:
    """Why none came, by all that led to the error: requests' own says the same of a refusal and of a reset."""
    from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
    from urllib3.exceptions import NewConnectionError, ProxyError

    error, nothing_sent, where, proxy, host_sandbox = broken
    chain = causes(error)

    def came_of(*kinds: Type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    code, retryable, advice, setting = "network", False, _advice(broken), proxy or "HTTPS_PROXY"
    tls = next((one for one in chain if type(one) in (ssl.SSLError, ssl.SSLCertVerificationError)), None)
    if tls or type(error) is OSError:  # the latter is requests' own look at the bundle, before it connects
        words = getattr(tls, "verify_message", None) or getattr(tls, "reason", None) or str(tls or error)
        code, why = "tls", f"TLS failed: {clean(words, 120)}"
        advice = ("Behind a company proxy, REQUESTS_CA_BUNDLE must name a file with its certificates; elsewhere it is not "
                  "needed.")
    elif came_of(InvalidURL, InvalidSchema, MissingSchema):
        fault = "the Python package PySocks is missing" if "SOCKS" in str(error) else type(error).__name__
        why, advice = f"{setting} or the URL cannot be used: {fault}", f"Check {setting}."
    elif came_of(ProxyError):
        refusal = re.search(r"Tunnel connection failed: (\d{3})", " ".join(map(str, chain)))
        why = f"the proxy of {setting} " + (f"answered {refusal[1]}" if refusal else "did not connect")
        retryable = not (refusal and refusal[1].startswith("4"))
    elif came_of(NewConnectionError) and came_of(PermissionError):  # of socket() or connect(), on loopback too
        why = "a sandbox on this machine forbids network connections"
        if not host_sandbox:
            advice = "Ask the user to allow them, or to run this outside it."
    else:
        why, retryable = _what_broke(chain), True
    consequence = "; nothing was sent" if nothing_sent else ""
    end = Image2Error(code, f"{where} gave no answer ({why}){consequence}. {advice}",
                      may_resend=retryable and nothing_sent)
    end.retryable = retryable  # else it is a setting of this machine, which stays as it is
    return end


def _advice(broken: Broken) -> str:
    if broken.host_sandbox:
        name, opens = broken.host_sandbox
        return f"{name}'s sandbox may block the network; ask the user to allow it: {opens}."
    what = f"the network and {broken.proxy}" if broken.proxy else "the network"
    return f"Check {what}, then run the same again."
