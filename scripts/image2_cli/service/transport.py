"""One HTTP exchange: no redirect followed, no credential added, a body bounded in size.

May touch the network; knows no key (whoever calls hands in an `auth` object), no file, no policy.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import io
import itertools
import math
import re
import time
import zlib
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Mapping, Optional

if TYPE_CHECKING:  # importing requests takes longer than all that --help does
    from requests import Response, Session

USER_AGENT = "image2-skill/2"
# To connect to one address: a name whose first two were dead failed within every look, at 10 s each (cpython#105249).
CONNECT_S = 4.0
HANDSHAKE_S = 15.0  # for TLS, or a proxy's CONNECT, and for each 16 KiB of a body to leave
SILENCE_S = 30.0  # between two received bytes
PIECE = 256 * 1024  # 200 MiB in 256 KiB pieces: 447 ms, in 8 KiB pieces 1044 ms
MAX_ERROR = 1024 * 1024  # of an answer that refuses
MAX_PLAIN = 8 * 1024 * 1024  # of an answer without pictures in it
OF_PICTURES = (b'"b64_json"', b";base64,")
MAX_ANSWER = 256 * 1024 * 1024  # ten large pictures as base64 in one answer
MAX_RATIO = 20  # of what is unpacked to what came; JSON is packed to a tenth, a bomb to a thousandth
LONGEST_S = 10**9  # of a Retry-After: more would only be more digits
Log = Callable[[str], None]


@dataclasses.dataclass
class Reply:
    """What came of an answer so far: a cut one can still be searched. Whoever asked fills in `value` and `words`."""

    status: Optional[int] = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytearray = dataclasses.field(default_factory=bytearray)
    given_up: bool = False  # nobody waits for the rest
    value: Any = None  # the body as JSON
    words: Optional[str] = None  # or as a plain text

    @property
    def is_2xx(self) -> bool:
        return 200 <= (self.status or 0) < 300

    @property
    def is_page(self) -> bool:
        """It is of a gateway, not of the service: HTML, by its bytes (PHP calls its JSON text/html as well)."""
        beginning = self.body[:200].lstrip(b"\xef\xbb\xbf \t\r\n")
        if not beginning:
            return "html" in self.headers.get("Content-Type", "").lower()
        return beginning.startswith((b"<", b"error code: "))  # the latter is Cloudflare's


class Body(io.BytesIO):
    """A request's body that knows whether any of it was handed to the network, and can be withheld until then: a name
    look-up that was given up goes on in its thread, and would send an order that was reported as not sent."""

    begun = withdrawn = False

    def read(self, size: Optional[int] = -1) -> bytes:
        """Called by urllib3 once the connection stands."""
        self.begun = True  # before the look at `withdrawn`; `withdraw` does the two in the other order
        if self.withdrawn:
            raise ValueError("withdrawn")
        return super().read(size)

    def withdraw(self) -> bool:
        """True if nothing of it was sent; then nothing of it ever will be."""
        self.withdrawn = True
        return not self.begun


class TooLarge(Exception):
    """The body is larger than its bound, in bytes, or unpacks to many times what came."""


def is_loopback(host: str) -> bool:
    """Only spellings nobody can mistake: no short forms, no numbers, no names but localhost."""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}", host))


def new_session(use_proxies: bool) -> Session:
    """A session without retries, with the CA bundle of the environment and, if `use_proxies`, its proxies."""
    import requests

    session = requests.Session()
    session.proxies = {} if use_proxies else dict.fromkeys(("http", "https", "all"), "")
    # identity: a compressed body that is cut cannot be searched for its task id
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, _adapter()())
    return session


def proxy_setting(url: str) -> Optional[str]:
    """The name of the setting whose proxy an exchange with `url` goes through, None where it goes through none."""
    from urllib.request import getproxies_environment

    from requests.utils import get_environ_proxies

    proxies = get_environ_proxies(url)
    for name in (url.partition(":")[0], "all"):
        if proxies.get(name):
            return f"{name.upper()}_PROXY" if name in getproxies_environment() else "this system's proxy setting"
    return None


def open_stream(session: Session, method: str, url: str, log: Optional[Log], auth: Any = None,
                silence: float = SILENCE_S, **content: Any) -> Response:
    """Send one request; the response with its body unread. `log(line)` gets one line for people, or is None."""
    started, outcome = time.monotonic(), "no answer"
    auth = auth or (lambda prepared: prepared)  # without any, requests takes a login for the host out of ~/.netrc
    try:
        response = session.request(method, url, auth=auth, allow_redirects=False, stream=True,
                                   timeout=(CONNECT_S, silence), proxies=dict(session.proxies), **content)
        outcome = f"{response.status_code}, {response.headers.get('Content-Length', '?')} bytes"
        return response
    finally:
        if log:
            log(f"{method} {url} -> {outcome}, {time.monotonic() - started:.2f} s")


def pieces(response: Response, bound: int) -> Iterator[bytes]:
    """The body as it comes, never waiting to fill a piece. One layer of packing that nobody asked for is undone, where it
    is and is not only said to be. Raises `TooLarge` past `bound` bytes, and what urllib3 raises where it breaks off."""
    received = iter(lambda: response.raw.read1(PIECE, decode_content=False), b"")
    first = next(received, b"")
    whole = itertools.chain([first], received)
    is_packed = "Content-Encoding" in response.headers and first[:1] in (b"\x1f", b"\x78")  # as gzip and zlib begin
    size = 0
    for piece in _unpacked(whole) if is_packed else whole:
        size += len(piece)
        if size > bound:
            raise TooLarge(bound)
        yield piece


def exchange(session: Session, method: str, url: str, reply: Reply, auth: Any, **content: Any) -> None:
    """Send and read to the end, into `reply`. Raises what requests and urllib3 raise, and `TooLarge`."""
    with open_stream(session, method, url, None, auth, **content) as response:
        reply.headers, reply.status = response.headers, response.status_code
        holds_pictures = False  # looked for until found: looking again at each piece, 160 MB took longer than there was
        for piece in pieces(response, MAX_ERROR if response.status_code >= 400 else MAX_ANSWER):
            reply.body += piece
            if len(reply.body) > MAX_PLAIN and not holds_pictures:
                holds_pictures = any(mark in reply.body for mark in OF_PICTURES)
            if reply.given_up or (len(reply.body) > MAX_PLAIN and not holds_pictures):
                raise TooLarge(MAX_PLAIN)


def retry_after(headers: Mapping[str, str]) -> Optional[int]:
    """`Retry-After` in whole seconds from now; None for nonsense and the past. A date counts from the answer's own
    `Date`, for clocks are wrong."""
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"\s*[0-9]+(\.[0-9]*)?\s*", value):
        seconds = float(value)
    else:
        seconds = _epoch(value, math.nan) - _epoch(headers.get("Date", ""), time.time())  # nan is in no range
    return min(math.ceil(seconds), LONGEST_S) if 0 <= seconds < math.inf else None


def causes(error: BaseException) -> List[BaseException]:
    """An exception and everything that led to it: requests and urllib3 wrap the truth several times."""
    seen: List[BaseException] = []
    queue: List[Any] = [error]
    while queue and len(seen) < 50:
        current = queue.pop(0)
        if isinstance(current, BaseException) and not any(current is one for one in seen):
            seen.append(current)
            queue += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return seen


def _epoch(date: str, otherwise: float) -> float:
    try:
        when = parsedate_to_datetime(date)
        return when.replace(tzinfo=when.tzinfo or timezone.utc).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return otherwise


def _unpacked(packed: Iterator[bytes]) -> Iterator[bytes]:
    """By zlib itself: urllib3 unpacked 1.5 MB of a bomb to 254 MiB before anybody could look (CVE-2025-66471)."""
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)  # gzip or zlib, by its head
    came = made = 0
    for packed_piece in packed:
        came += len(packed_piece)
        piece = unpacker.decompress(packed_piece, PIECE)
        while piece:
            made += len(piece)
            if made > max(MAX_ERROR, MAX_RATIO * came):
                raise TooLarge(MAX_RATIO)
            yield piece
            piece = unpacker.decompress(unpacker.unconsumed_tail, PIECE)
        if unpacker.eof:
            return
    raise zlib.error("cut")


@functools.cache
def _adapter() -> Any:
    """The class of requests' adapters whose connections are ours; made late, because requests is imported late."""
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
            pool: Any = super().get_connection_with_tls_context(*args, **named)
            if not issubclass(pool.ConnectionCls, _Connection):
                pool.ConnectionCls = type("Connection", (_Connection, pool.ConnectionCls), {})
            return pool

    return Adapter


class _Answer(http.client.HTTPResponse):
    """Passes over any 1xx before it. http.client passes over 100 alone: 103 Early Hints was taken for the answer."""

    def _read_status(self) -> Any:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, http.client.CONTINUE if 100 <= status < 200 else status, reason


class _Connection:
    """What is added to a connection of urllib3: it has little time to connect, and more for what follows."""

    response_class = _Answer

    def _new_conn(self) -> Any:
        sock = super()._new_conn()  # type: ignore[misc]
        self.timeout = HANDSHAKE_S
        sock.settimeout(HANDSHAKE_S)
        return sock
