"""The service: submit an order, look at a task. The only module that holds the key.

The key leaves through an `auth=` object (requests replaces a plain header by `Basic …` where ~/.netrc knows the host), and
no redirect is followed (a 307 loop re-sent one POST 31 times). Writes nothing; `acceptance` says what an answer means.
"""

from __future__ import annotations

import collections
from typing import Any, Callable, Deque, Optional
from urllib.parse import quote, urlsplit

from ..clock import Clock, Interrupted, Overdue
from ..errors import HostSandbox, Image2Error
from ..text import WITHHELD, without
from . import acceptance, transport
from .task import NotATask, Task, parse_json, without_runs

LINGER_S = 0.6  # after a signal, the time an order in flight gets to name its task id


class _Bearer:
    """Puts the key into a request. Nothing else knows it, and no repr shows it."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, prepared: Any) -> Any:
        prepared.headers["Authorization"] = "Bearer " + self._key
        return prepared

    def read(self, reply: transport.Reply) -> None:
        """Fill in what the answer says, without the key: a service that echoes it must not put it into a record."""
        for key in (self._key, self._key.replace("/", "\\/")):  # as PHP's JSON has it, where a cut answer is searched
            if key.encode("ascii") in reply.body:
                reply.body = reply.body.replace(key.encode("ascii"), WITHHELD.encode("ascii"))
        try:
            reply.value = without(parse_json(reply.body), self._key)
        except (NotATask, RecursionError):
            text = reply.body[: transport.MAX_ERROR].decode("utf-8", "replace")
            oddities = sum(char == "\ufffd" or not (char.isprintable() or char.isspace()) for char in text[:500])
            if oddities < 5 and not reply.is_page and not text.startswith(("{", "[")):  # a cut object is no sentence
                reply.words = without(without_runs(text), self._key)


class Api:
    """The endpoints of one service, for any number of threads at once. `base_url` comes normalised."""

    def __init__(self, base_url: str, key: str, clock: Clock, log: Optional[Callable[[str], None]] = None,
                 host_sandbox: Optional[HostSandbox] = None) -> None:
        self.orders_url = f"{base_url}/api/v1/images/generations"
        self._tasks_url = f"{base_url}/api/v1/images/tasks/"
        self.where = urlsplit(base_url).netloc
        self.is_stand_in = False  # set by the first answer of a loopback service that says it is the sandbox
        self._is_loopback = transport.is_loopback(urlsplit(base_url).hostname or "")
        self._clock, self._log, self._host_sandbox, self._bearer = clock, log, host_sandbox, _Bearer(key)
        self._attempts: dict[str, int] = {}  # by URL, for the log
        self._idle: Deque[Any] = collections.deque(maxlen=32)  # sessions; each is used by one thread at a time

    def submit(self, body: bytes, order_id: str, seconds: float, had_local_image: bool = False) -> Task:
        """POST one order once. Raises `Image2Error`, and `Interrupted` with `charged` set unless the task came in time."""
        reply, content = transport.Reply(), transport.Body(body)
        headers = {"Content-Type": "application/json", "Idempotency-Key": order_id}
        # a kept connection may be closed by the service just now: then the order's fate would be unknown
        session = self._new_session()
        try:
            self._clock.check()  # a signal that came while all was prepared: nothing is sent after it
            self._exchange(session, "POST", self.orders_url, reply, seconds, LINGER_S, data=content, headers=headers,
                           silence=seconds)
        except (Exception, Interrupted) as error:
            try:
                return acceptance.of_order(reply, had_local_image, self._broken(error, content.withdraw()))
            except Image2Error as end:
                if isinstance(error, Interrupted):
                    error.charged = end.charged
                    raise error from None
                raise end from None
        return acceptance.of_order(reply, had_local_image)

    def look(self, task_id: str, seconds: float) -> Task:
        """GET one task once; free. Raises `Image2Error`."""
        reply = transport.Reply()
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._new_session()
        try:
            self._exchange(session, "GET", self._tasks_url + quote(task_id, safe=""), reply, seconds)
        except Exception as error:
            return acceptance.of_look(reply, task_id, self._broken(error, nothing_sent=False))
        return acceptance.of_look(reply, task_id)

    def _new_session(self) -> Any:
        return transport.new_session(use_proxies=not self._is_loopback)  # there, no proxy may see the key

    def _broken(self, error: BaseException, nothing_sent: bool) -> acceptance.Broken:
        proxy = None if self._is_loopback else transport.proxy_setting(self.orders_url)
        return acceptance.Broken(error, nothing_sent, self.where, proxy, self._host_sandbox)

    def _exchange(self, session: Any, method: str, url: str, reply: transport.Reply, seconds: float, linger: float = 0.0,
                  **content: Any) -> None:
        """One exchange within `seconds`; the session is kept for the next one where it ended well."""
        started, outcome = self._clock.now(), "no answer"
        try:
            self._clock.call(lambda: transport.exchange(session, method, url, reply, self._bearer, **content),
                             seconds, linger)
        except (Overdue, Interrupted):
            outcome = "given up"
            reply.given_up = True  # its thread may still use the session
            raise
        finally:
            self._bearer.read(reply)
            if self._log:
                attempt = self._attempts[url] = self._attempts.get(url, 0) + 1
                self._log(f"attempt {attempt}: {method} {url} -> {reply.status or outcome}, {len(reply.body)} bytes, "
                          f"{self._clock.now() - started:.2f} s")
        if self._is_loopback and reply.headers.get("Server", "").startswith("image2-sandbox"):
            self.is_stand_in = True
        self._idle.append(session)
