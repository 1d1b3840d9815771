"""A link or base64 -> a verified file under a temporary name, then under its own, or a clear reason. Cannot know the key.

Network (without any credential) and disk; knows no order and chooses no name. A picture is written to a `.part` file
beside its place, checked to be one whole picture, and only then published, in one step that replaces nothing unasked.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import hashlib
import itertools
import os
import re
import ssl
import stat
import time
import uuid
from typing import Any, BinaryIO, Callable, Iterable, Iterator, NamedTuple, Optional

from ..clock import Clock, backoff
from ..errors import Image2Error
from ..service import transport
from . import links
from .image_check import HEAD, NotRaster, inspect, what_is

MAX_BYTES = 64 * 1024 * 1024
SILENCE_S = 20.0
TRIES = 3  # at least, while there is time
LATE_S = 10.0  # for so long a link that does not work yet is a CDN that is late
REDIRECTS = 5
STALE = (401, 403, 404, 410)  # an expired link, where it lasts: the task is asked for a fresh one
OVERLAP = 1024  # bytes that are fetched again to see that what goes on is the same picture
IN_USE = (5, 32)  # Windows: "access denied" and "used by another process", while a viewer or scanner holds the file


class Source(NamedTuple):
    """Where pictures come from: the service's address, the time, and who gets a line for each exchange."""

    base_url: str
    clock: Clock
    log: Optional[Callable[[str], None]] = None


class Saved(NamedTuple):
    """What came whole by HTTP, under its temporary name. `damaged`: a sentence, why it is no whole picture all the same."""

    part: str
    format: str
    extension: str
    width: Optional[int]
    height: Optional[int]
    bytes: int
    sha256: str
    damaged: Optional[str] = None


class NotSaved(Image2Error):
    """One picture could not be had. `stale`: fresh links may help. `is_begun`: its file is left, to go on from;
    else the file is worth nothing, and whoever made it removes it. `is_final`: every other run would end so."""

    def __init__(self, message: str, stale: bool = False, is_begun: bool = False, is_final: bool = False) -> None:
        super().__init__("not_saved", message)
        self.stale, self.is_begun, self.is_final = stale, is_begun, is_final


class _Again(NotSaved):
    """This try failed; another may not. `retry_after_s`: the pause that the server asked for."""


@contextlib.contextmanager
def _for_good() -> Iterator[None]:
    """What no other try would mend becomes `NotSaved`."""
    try:
        yield
    except transport.TooLarge:
        raise NotSaved(f"The picture is larger than {MAX_BYTES >> 20} MB.", is_final=True) from None
    except OSError as error:
        raise NotSaved(f"The disk refused it ({error.strerror or error}).") from None


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """What goes wrong there is worth another try, but for what would end in the same way."""
    try:
        yield
    except (NotSaved, transport.TooLarge):
        raise
    except links.BadLink as reason:
        raise NotSaved(f"The service gave a link {reason}.") from None
    except Exception as error:
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in transport.causes(error)):
            raise NotSaved("The certificate of the link's server cannot be verified.") from None
        raise _Again(f"The download broke off ({type(error).__name__}).") from None


@_for_good()
def new_part(folder: str, order_id: str, index: int) -> str:
    """A new empty temporary file, which `leftovers` finds after a kill. Raises `NotSaved`. Nobody else makes one: the
    thread of a download that was given up lives a little longer, and could make its file anew behind everybody's back."""
    path = os.path.join(folder, f".image2-{order_id}-{index}-{uuid.uuid4().hex}.part")
    # 0666 less the umask, as any file the user makes; mkstemp would leave a 0600 that web servers cannot read
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return path


def leftovers(folder: str, order_id: str) -> list[str]:
    """The temporary files that a killed run of this order left."""
    return sorted(glob.glob(glob.escape(os.path.join(folder, f".image2-{order_id}-")) + "*.part"))


def remove(path: str) -> None:
    """Unlink a temporary file that may be gone already."""
    with contextlib.suppress(OSError):
        os.unlink(path)


@_for_good()
def fetch(url: str, part: str, source: Source, deadline: float) -> Saved:
    """GET a picture into `part`, as often as there is time for until `deadline` (in the clock's seconds); a GET is free.
    Goes on from what the file already holds where that is the beginning of the same picture. Raises `NotSaved`."""
    download, clock, began = _Download(url, part, source, deadline), source.clock, source.clock.now()
    tries = fruitless = 0
    while True:
        had = os.path.getsize(part)
        try:
            return download.attempt(had)
        except _Again as again:
            tries += 1
            fruitless = 0 if os.path.getsize(part) > had else fruitless + 1
            pause = max(backoff(fruitless), again.retry_after_s or 0)
            is_gone = again.stale and tries >= TRIES and clock.now() - began >= LATE_S
            if is_gone or clock.now() + pause >= deadline:
                return download.give_up(again)
        clock.sleep(pause)


@_for_good()
def unpack(data: str, part: str) -> Saved:
    """base64 text or a data: URI out of the answer -> `part`. Raises `NotSaved`."""
    text = "".join((data.partition(",")[2] if data.startswith("data:") else data).split())
    if len(text) > MAX_BYTES // 3 * 4:
        raise transport.TooLarge
    # a paid picture is not lost to the URL-safe alphabet or to padding that was left out
    plain = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise NotSaved("The service sent base64 that cannot be read.", is_final=True) from None
    kind = what_is(raw)
    if not kind.extension:
        raise NotSaved(f"The service sent base64 that is no picture, but {kind.name}.", is_final=True)
    with _opened(part, "r+b") as file:
        return _filled(file, 0, [raw])


@_for_good()
def examine(part: str) -> Saved:
    """A temporary file that came whole in an earlier run, which was killed before it got its name. Raises `NotSaved`."""
    with _opened(part, "r+b") as file:
        return _filled(file, os.path.getsize(part), [])


def publish(part_path: str, path: str, overwrite: bool) -> bool:
    """Give a file its name in one step. False where the name is taken, or is to be replaced while it is held open."""
    for _ in range(10):
        try:
            if overwrite:
                os.replace(part_path, path)
            elif os.name == "nt":
                os.rename(part_path, path)  # refuses a name that is taken
            else:
                _link(part_path, path)
            return True
        except FileExistsError:
            return False
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            time.sleep(0.05)
    return False


def _link(part_path: str, path: str) -> None:
    """A rename that replaces nothing; raises FileExistsError. FAT and some network folders know no hard links. There the
    name is looked for under a lock on the folder: a kill would leave an empty file that reserves it as the picture."""
    import fcntl

    try:
        os.link(part_path, path)
        return remove(part_path)
    except FileExistsError:
        raise
    except OSError:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        for _ in range(20):  # whoever else holds the folder, or a file system without locks, must not hold a picture up
            with contextlib.suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        if os.path.lexists(path):
            raise FileExistsError
        os.rename(part_path, path)
    finally:
        os.close(folder)


def is_file_with(path: str, sha256: str) -> bool:
    """Does a regular file of this name, no link, still hold the very bytes that were saved there?"""
    try:
        with _opened(path, "rb") as file:
            return _digest(file) == sha256
    except (OSError, ValueError):
        return False


class _Download:
    """One picture: the exchanges for it, and what they have told of it."""

    def __init__(self, url: str, path: str, source: Source, deadline: float) -> None:
        self.url, self.path, self.source, self.deadline = url, path, source, deadline
        self.etag: Optional[str] = None
        self.length: Optional[int] = None
        self.anew = False  # what the file holds is nothing to go on from
        self.damaged: Optional[Saved] = None  # what came last, where it is no whole picture

    def attempt(self, had: int) -> Saved:
        """One exchange into the file, which goes on from the `had` bytes in it. What came damaged must come so twice."""
        begin = 0 if self.anew else max(0, had - OVERLAP)
        use_proxies = not links.is_of_this_machine(self.source.base_url)
        with transport.new_session(use_proxies) as session, self._open(session, begin) as response:
            saved = self._write(response, *self._start(response, begin))
        if saved.damaged and saved != self.damaged:
            self.damaged, self.anew = saved, True
            raise _Again(f"What came is no whole picture. {saved.damaged}")
        return saved

    def give_up(self, again: _Again) -> Saved:
        """What came last, where it is whole by its length: no time is left to see it come a second time. Else raises."""
        if self.damaged and self.damaged.bytes == self.length and is_file_with(self.path, self.damaged.sha256):
            return self.damaged
        again.is_begun = not self.anew and os.path.getsize(self.path) > OVERLAP
        raise again

    @_network()
    def _open(self, session: Any, begin: int) -> Any:
        """The answer at the end of at most five redirects, each of them checked like the link itself."""
        headers = {"Range": f"bytes={begin}-", "If-Range": self.etag} if begin else {}  # None is not sent
        session.get_redirect_target = lambda response: None  # requests would read the body of a redirect, however large
        url, target = f"{self.source.base_url}/", self.url
        for _ in range(REDIRECTS + 1):
            url = links.asked(target, url, self.source.base_url)
            silence = min(SILENCE_S, max(1.0, self.deadline - self.source.clock.now()))
            response = transport.open_stream(session, "GET", url, self.source.log, silence=silence, headers=headers)
            target = links.of_header(response.headers.get("Location", ""))
            if not (response.is_redirect and target):
                return response
            response.close()
        raise NotSaved(f"The link was redirected more than {REDIRECTS} times.")

    def _start(self, response: Any, begin: int) -> tuple[int, Optional[str], Optional[int]]:
        """Where the answer begins in the picture, and the ETag and length of the whole."""
        headers, status = response.headers, response.status_code
        strong = re.fullmatch(r'"[!#-~]*"', headers.get("ETag", ""))
        etag = strong[0] if strong else None
        if status == 200:
            given = re.fullmatch("[0-9]{1,15}", headers.get("Content-Length", ""))
            if given and int(given[0]) > MAX_BYTES:
                raise transport.TooLarge
            return 0, etag, int(given[0]) if given and "Content-Encoding" not in headers else None
        total = re.fullmatch(f"bytes {begin}-[0-9]+/([0-9]{{1,15}})", headers.get("Content-Range", ""))
        if status == 206 and total and self.etag in (None, etag) and self.length in (None, int(total[1])):
            return begin, etag, int(total[1])
        self.anew = self.anew or status in (206, 416)
        again = _Again(f"The link answered {status}.", status in STALE)
        again.retry_after_s = transport.retry_after(headers)
        raise again

    def _write(self, response: Any, at: int, etag: Optional[str], length: Optional[int]) -> Saved:
        pieces, head = self._pieces(response, MAX_BYTES - at), b""
        for piece in pieces:
            head += piece
            if len(head) >= OVERLAP:
                break
        kind = what_is(head)
        if not at and not kind.extension:  # a page, while the file may hold the half of a picture
            raise _Again(f"What came is no picture, but {kind.name}.")
        with _opened(self.path, "r+b") as file:
            file.seek(at)
            if at and file.read(OVERLAP) != head[:OVERLAP]:
                self.anew = True
                raise _Again("Another picture came where the download should have gone on.")
            self.anew, self.etag, self.length = False, etag, length
            saved = _filled(file, at, itertools.chain([head], pieces))
        if length not in (None, saved.bytes):
            raise _Again("The download broke off.")
        return saved

    def _pieces(self, response: Any, bound: int) -> Iterator[bytes]:
        with _network():
            for piece in transport.pieces(response, bound):
                yield piece
                if self.source.clock.now() > self.deadline:
                    raise _Again("The time was up before the download ended.")


def _opened(path: str, mode: str) -> Any:
    """A regular file that is there: a link leads elsewhere, a FIFO would hang the read, a device feed it for ever."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError("not a regular file")
    safely = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # it may be exchanged just now
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | safely))


def _filled(file: BinaryIO, at: int, pieces: Iterable[bytes]) -> Saved:
    """Write the bytes of a temporary file from `at` on, and examine all that it holds then: it may have come in runs."""
    file.seek(at)
    file.truncate()
    for piece in pieces:
        file.write(piece)
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    digest, size = _digest(file), file.tell()
    file.seek(0)
    kind = what_is(file.read(HEAD))
    try:
        raster = inspect(file)
    except NotRaster as reason:
        ending = ".damaged" if kind.measure or kind.format == "unknown" else ""  # fox.png.damaged, but fox.bmp
        sentence = f"{str(reason)[0].upper()}{str(reason)[1:]}."
        return Saved(file.name, kind.format, kind.extension + ending, None, None, size, digest, sentence)
    return Saved(file.name, kind.format, kind.extension, raster.width, raster.height, size, digest)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for piece in iter(lambda: file.read(transport.PIECE), b""):
        digest.update(piece)
    return digest.hexdigest()
