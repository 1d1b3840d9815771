"""The service: submit an order, look at a task. The only room that holds the key.

The key leaves through an `auth=` object to the base URL's host alone: requests replaces a plain header by
`Basic …` where ~/.netrc knows the host. No redirect is followed (a 307 loop re-sent one POST 31 times).
Writes nothing; what an answer means is told by `acceptance`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from ..clock import Interrupted, Overdue
from ..errors import Image2Error
from . import acceptance as verdict
from . import transport
from .task import NotATask, Task, parse_json, without

LINGER_S = 0.6  # after a signal, the time an order in flight gets to tell its task id
MAX_ANSWER = 256 * 1024 * 1024  # ten large pictures as base64 in one answer


class _Bearer:
    def __init__(self, key: str):
        self._key = key

    def __call__(self, prepared):
        prepared.headers["Authorization"] = "Bearer " + self._key
        return prepared


class Api:
    """The endpoints of one service. Not for several threads at once: each takes its own."""

    def __init__(self, settings, clock, log=None, sandbox=None):
        self._settings, self._clock, self._log = settings, clock, log
        self._auth = _Bearer(settings.key)
        self._session = None
        self._blocked_by = sandbox
        self.where = urlsplit(settings.base_url).netloc
        self.is_stand_in = settings.is_sandbox

    @property
    def orders_url(self) -> str:
        """Where orders are POSTed."""
        return self._settings.base_url + "/api/v1/images/generations"

    def submit(self, body: bytes, order_id: str, seconds: float) -> Task:
        """POST one order once. Raises `Image2Error`; `outcome_unknown` where it may have been accepted.

        Raises `Interrupted` with `charged` set, unless what had come by then holds the task.
        """
        reply, content = transport.Reply(), transport.Body(body)
        self._session = None  # a kept connection may be closed by the service just now: then the fate were unknown
        headers = {"Content-Type": "application/json", "Idempotency-Key": order_id}
        try:
            self._clock.check()  # a signal that came while all was prepared: nothing is sent after it
            self._exchange("POST", self.orders_url, reply, seconds, LINGER_S, data=content, headers=headers,
                           silence=seconds)
        except (Exception, Interrupted) as error:
            nothing_sent = content.withdraw()
            self._read(reply)
            try:
                return verdict.of_broken_order(error, transport.causes(error), reply, self.where, nothing_sent,
                                               self._blocked_by)
            except Image2Error as end:
                if not isinstance(error, Interrupted):
                    raise
                error.charged = end.charged
                raise error from None
        self._read(reply)
        return verdict.of_order(reply)

    def look(self, task_id: str, seconds: float = 15.0) -> Task:
        """GET one task once; free. Raises `Image2Error`."""
        reply = transport.Reply()
        try:
            self._exchange("GET", "%s/api/v1/images/tasks/%s" % (self._settings.base_url, task_id), reply, seconds)
        except Exception as error:
            raise verdict.of_broken_look(error, transport.causes(error), self.where, self._blocked_by) from None
        self._read(reply)
        return verdict.of_look(reply, task_id)

    def _read(self, reply):
        """Fill in `reply.value`, without the key: a service that echoes it must not put it into a record."""
        key = str(self._settings.key)
        reply.body = bytes(reply.body).replace(key.encode("ascii"), b"(withheld)")
        try:
            reply.value = without(parse_json(reply.body), key)
        except (NotATask, RecursionError):
            reply.value = None

    def _exchange(self, method, url, reply, seconds, linger=0.0, **content):
        if self._session is None:
            # on loopback no proxy of the environment may see the key
            self._session = transport.new_session(use_proxies=not self._settings.is_loopback)
        session = self._session
        try:
            self._clock.call(lambda: transport.exchange(session, method, url, reply, MAX_ANSWER, self._log, self._auth,
                                                        **content), seconds, linger)
        except Overdue:
            self._session = None  # its thread may still use it
            if self._log:
                self._log("%s %s -> given up after %.2f s" % (method, url, seconds))
            raise
        self.is_stand_in = self.is_stand_in or (self._settings.is_loopback
                                                and reply.headers.get("Server", "").startswith("image2-sandbox"))
