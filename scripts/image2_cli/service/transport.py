"""One HTTP exchange: no redirect followed, no credential added, a body bounded in size.

May touch the network; knows no key (whoever calls hands in an `auth` object), no file, no policy. What came
before an exchange broke stays readable in `Reply`, so that a cut answer can still be searched.
"""

from __future__ import annotations

import io
import time

from .. import VERSION

USER_AGENT = "image2-skill/%s" % VERSION
CONNECT_S, SILENCE_S = 10.0, 30.0  # to connect; between two bytes
PIECE = 256 * 1024  # 200 MiB in 256 KiB pieces: 447 ms, in 8 KiB pieces 1044 ms


class Reply:
    """What came of an answer so far. `body` grows while it is read; `whole` says that its end was seen.

    `value` is the body as JSON, None where it is none; whoever asked fills it in.
    """

    def __init__(self):
        self.status = None
        self.headers = {}
        self.body = bytearray()
        self.whole = False
        self.value = None


class Body(io.BytesIO):
    """A request's body that knows whether any of it was handed to the network, and can be withheld until then.

    A reset in a TLS handshake or a proxy that hangs looks in the exception like one after the request; and a
    name look-up that was given up goes on in its thread, and would send an order that was reported as not sent.
    """

    begun = withdrawn = False

    def read(self, size=-1):
        """Called by urllib3 once the connection stands. Raises where the body was withdrawn."""
        self.begun = True  # before the look at `withdrawn`; `withdraw` does the two in the other order
        if self.withdrawn:
            raise ValueError("withdrawn")
        return super().read(size)

    def withdraw(self) -> bool:
        """True if nothing of it was sent; then nothing of it ever will be."""
        self.withdrawn = True
        return not self.begun


class TooLarge(Exception):
    """The body is larger than its bound, in bytes."""


class Silent:
    """An `auth` that adds nothing: without one, requests takes a login for the host out of ~/.netrc."""

    def __call__(self, prepared):
        return prepared


def new_session(use_proxies: bool):
    """A session without retries, with the CA bundle of the environment and, if `use_proxies`, its proxies."""
    import requests

    session = requests.Session()
    session.proxies = {} if use_proxies else dict.fromkeys(("http", "https", "all"), "")
    # identity: a compressed body that is cut cannot be searched for its task id
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    return session


def open_stream(session, method: str, url: str, log, auth=None, silence: float = SILENCE_S, **content):
    """Send one request; the response with its body unread. `log(line)` gets one line for people, or is None."""
    started = time.monotonic()
    line = "%s %s" % (method, url)
    try:
        response = session.request(method, url, auth=auth or Silent(), allow_redirects=False, stream=True,
                                   timeout=(CONNECT_S, silence), proxies=dict(session.proxies), **content)
    except Exception as error:
        if log:
            log("%s -> %s after %.2f s" % (line, type(error).__name__, time.monotonic() - started))
        raise
    if log:
        log("%s -> %d, %s bytes, %.2f s" % (line, response.status_code, response.headers.get("Content-Length", "?"),
                                            time.monotonic() - started))
    return response


def pieces(response, bound: int):
    """The body as it comes, a received piece at a time (never waiting to fill one: a drip would hold it for ever).

    Raises `TooLarge` past `bound` bytes, and whatever urllib3 raises for a body that breaks off.
    """
    received = 0
    while True:
        piece = response.raw.read1(PIECE, decode_content=True)
        if not piece:
            return
        received += len(piece)
        if received > bound:
            raise TooLarge(bound)
        yield piece


def exchange(session, method: str, url: str, reply: Reply, bound: int, log=None, auth=None, **content) -> Reply:
    """Send and read to the end, into `reply`. Raises what requests and urllib3 raise, and `TooLarge`."""
    response = open_stream(session, method, url, log, auth, **content)
    try:
        reply.headers = response.headers
        reply.status = response.status_code
        for piece in pieces(response, bound):
            reply.body += piece
        reply.whole = True
    finally:
        response.close() if not reply.whole else response.raw.release_conn()
    return reply


def causes(error: BaseException):
    """An exception and everything that led to it: requests and urllib3 wrap the truth several times."""
    seen, queue = [], [error]
    while queue and len(seen) < 50:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or any(current is one for one in seen):
            continue
        seen.append(current)
        queue += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return seen
