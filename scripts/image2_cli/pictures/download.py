"""A URL or bytes -> a verified file, or a clear reason. Cannot know the key.

Network (without any credential) and disk. A picture is written to a `.part` file beside its place, checked
to be a whole raster image, and only then published under its name, in one step that replaces nothing unasked.
Ten of fourteen like tools saved error pages as `.png`; such a file later breaks an agent's session.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import uuid
from typing import NamedTuple
from urllib.parse import urljoin

from ..errors import Image2Error
from ..order.pace import backoff
from ..service import transport
from . import links
from .image_check import NotRaster, inspect

MAX_BYTES = 64 * 1024 * 1024
SILENCE_S = 20.0
TRIES = 3
REDIRECTS = 5
REDIRECT = (301, 302, 303, 307, 308)
STALE = (401, 403, 404, 410)  # an expired link: the task is asked for a fresh one


class Saved(NamedTuple):
    """A picture on disk under its temporary name."""

    part: str
    format: str
    width: int
    height: int
    sha256: str


class NotSaved(Image2Error):
    """One picture could not be had. `stale`: a fresh URL may help."""

    def __init__(self, message, http_status=None, stale=False):
        super().__init__("not_saved", message, http_status=http_status)
        self.stale = stale


def make_parts(folder: str, order_id: str, count: int) -> list:
    """New empty temporary files of one order; what a killed run leaves of them is found by `leftovers`.

    Whoever made them removes them. They are made here and only opened by `fetch`: the thread of a download that
    is given up lives a little longer, and could otherwise make its file anew behind everybody's back. Raises
    `NotSaved`.
    """
    parts = []
    # 0666 less the umask, as any file the user makes; mkstemp would leave a 0600 that web servers cannot read
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        for _ in range(count):
            path = os.path.join(folder, ".image2-%s-%s.part" % (order_id, uuid.uuid4().hex))
            os.close(os.open(path, flags, 0o666))
            parts.append(path)
    except OSError as error:
        for part in parts:
            remove(part)
        raise _refused_by_disk(error) from None
    return parts


def leftovers(folder: str, order_id: str) -> list:
    """The temporary files that a killed run of this order left."""
    start = ".image2-%s-" % order_id
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)
                if name.startswith(start) and name.endswith(".part")]
    except OSError:
        return []


def remove(path: str):
    """Unlink a temporary file that may be gone already."""
    try:
        os.unlink(path)
    except OSError:
        pass


def fetch(url: str, part: str, loopback: bool, clock, deadline: float, log=None, home: str = "") -> Saved:
    """GET a picture into `part`, up to three times; the GET is free. Raises `NotSaved`.

    `loopback`: the service is on this machine, so http and loopback addresses are its own. `deadline` in the
    clock's seconds. `home`: host and port of the service, wherever it is, as in its base URL.
    """
    attempt = 1
    while True:
        try:
            return _fetch_once(url, part, loopback, clock, deadline, log, home)
        except _Again as again:
            pause = backoff(attempt - 1)
            if attempt == TRIES or clock.now() + pause >= deadline:
                raise NotSaved(str(again), again.http_status) from None
            clock.sleep(pause)
            attempt += 1


def unpack(data: str, part: str) -> Saved:
    """base64 text or a data: URI out of the answer -> `part`. Raises `NotSaved`."""
    text = data.partition(",")[2] if data.startswith("data:") else data
    if len(text) > 2 * MAX_BYTES:  # with line ends and all; before decoding makes it larger still
        raise _too_large()
    try:
        # a paid picture is not lost to the URL-safe alphabet or to padding that was left out
        plain = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise NotSaved("the service sent base64 that cannot be read") from None
    if len(raw) > MAX_BYTES:
        raise _too_large()
    try:
        return _write(part, (raw,))
    except _Again as again:
        raise NotSaved(str(again)) from None
    except OSError as error:
        raise _refused_by_disk(error) from None


def publish(part: str, path: str, overwrite: bool) -> bool:
    """Give a verified file its name in one step. False where the name is taken and `overwrite` is not set."""
    if overwrite:
        os.replace(part, path)
        return True
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:
        return _publish_without_links(part, path)
    remove(part)
    return True


def check_url(url: str, loopback: bool, home: str = ""):
    """Raise `NotSaved` for a URL that must not be asked; see `links.why_not`."""
    reason = links.why_not(url, loopback, home)
    if reason:
        raise NotSaved("the service gave a link " + reason)


class _Again(Exception):
    """This try failed; another may not."""

    def __init__(self, message, http_status=None):
        super().__init__(message)
        self.http_status = http_status


def _too_large() -> NotSaved:
    return NotSaved("the picture is larger than %d MB" % (MAX_BYTES >> 20))


def _refused_by_disk(error: OSError) -> NotSaved:
    return NotSaved("the disk refused it (%s)" % (error.strerror or error))


def _fetch_once(url, part, loopback, clock, deadline, log, home) -> Saved:
    session = transport.new_session(use_proxies=not loopback)
    try:
        response = _open(session, url, loopback, home, min(SILENCE_S, max(1.0, deadline - clock.now())), log)
        if response.status_code in STALE:
            raise NotSaved("the link answered %d" % response.status_code, response.status_code, stale=True)
        if response.status_code != 200:
            raise _Again("the link answered %d" % response.status_code, response.status_code)
        if _says_too_large(response):
            raise _too_large()
        return _write(part, _until(transport.pieces(response, MAX_BYTES), clock, deadline))
    except transport.TooLarge:
        raise _too_large() from None
    except (NotSaved, _Again):
        raise
    except Exception as error:
        # requests' errors are OSErrors too, but without a number; what has one comes from the disk
        if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
            raise _refused_by_disk(error) from None
        raise _Again("the download broke off (%s)" % type(error).__name__) from None
    finally:
        session.close()


def _open(session, url, loopback, home, silence, log):
    """The answer at the end of at most five redirects, each of them checked like the link itself."""
    for _ in range(REDIRECTS + 1):
        check_url(url, loopback, home)
        response = transport.open_stream(session, "GET", url, log, silence=silence)
        target = response.headers.get("Location")
        if response.status_code not in REDIRECT or not target:
            return response
        url = urljoin(url, target)
        response.close()
    raise NotSaved("the link was redirected more than %d times" % REDIRECTS)


def _until(pieces, clock, deadline):
    for piece in pieces:
        yield piece
        if clock.now() > deadline:
            raise _Again("the time was up before the download ended")


def _write(part, pieces) -> Saved:
    digest = hashlib.sha256()
    flags = os.O_RDWR | os.O_TRUNC | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(part, flags), "w+b") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            raster = inspect(file)
    except NotRaster as reason:
        raise _Again("what came is no whole picture: %s" % reason) from None
    return Saved(part, raster.format, raster.width, raster.height, digest.hexdigest())


def _says_too_large(response) -> bool:
    text = response.headers.get("Content-Length", "")
    return re.fullmatch(r"[0-9]{1,15}", text) is not None and int(text) > MAX_BYTES


def _publish_without_links(part: str, path: str) -> bool:
    # FAT, some network folders and Windows know no hard links
    try:
        if os.name == "nt":
            os.rename(part, path)  # refuses a name that is taken
            return True
        open(path, "xb").close()
    except FileExistsError:
        return False
    try:
        os.replace(part, path)
    except OSError:
        remove(path)  # it is ours, and empty
        raise
    return True


def is_file_with(path: str, sha256) -> bool:
    """Does the file still hold the very picture that was saved there?"""
    if not os.path.isfile(path):  # a FIFO would hang the read, a device feed it for ever
        return False
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            for piece in iter(lambda: file.read(transport.PIECE), b""):
                digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == sha256
