"""The state folder `OUT/.image2`: ours, or it is not used. Its locks, and the one atomic writer.

Everything in it is opened relative to a directory that is really one and of this user, never through a link, and only
regular files: agents work in checkouts that somebody else wrote, and a link there made an order delete or write files
elsewhere; a FIFO held a paid batch for ever. New files are made with O_EXCL and 0600, whatever the umask.
Touches nothing outside the folder it is given, apart from the file that `publish` is told to write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
import time
import uuid
import zlib
from typing import Optional

NAME = ".image2"
CAN_BE_RELATIVE = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd  # not on Windows
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
NO_LINK |= getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
IN_USE = (5, 32)  # Windows: access denied, sharing violation
OLD_PART_S = 60.0  # writing a file takes milliseconds


class StateFolder:
    """The state folder of `folder`, or the folder `where` in it, as long as a `with` lasts. `make`: it may be made.
    Raises OSError."""

    def __init__(self, folder: str, where: str = "", make: bool = False) -> None:
        self.path = os.path.join(folder, NAME)
        self._descriptor = _descriptor_of(self.path, make, None)
        try:
            if make:
                self._keep_out_of_git()
            if where:
                above, self.path = self._descriptor, os.path.join(self.path, where)
                self._descriptor = _descriptor_of(self.path, make, above)
                if above is not None:
                    os.close(above)
        except OSError:
            self.__exit__()
            raise

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _keep_out_of_git(self) -> None:
        try:
            with os.fdopen(self.open(".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(b"*\n")
        except FileExistsError:
            os.close(self.open(".gitignore", os.O_RDONLY))  # a dangling link made its target: git then ignored everything

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else os.path.join(self.path, name)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor of a regular file. Raises OSError for whatever else has that name."""
        in_the_way = OSError(0, f"{os.path.join(self.path, name)} is a link, a pipe or a folder, not a file")
        try:
            descriptor = os.open(self._at(name), flags | NO_LINK, mode, dir_fd=self._descriptor)
        except OSError as error:
            raise in_the_way if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) else error from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise in_the_way
        if flags & os.O_EXCL and mode == 0o600 and hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)  # whatever the umask
        return descriptor

    def names(self) -> list[str]:
        """What is in it, in no order; what killed runs left half written is removed. Not for two threads: they would
        share one position, and each miss names."""
        names = os.listdir(self.path if self._descriptor is None else self._descriptor)
        for name in names:
            if name.endswith(".part"):
                with contextlib.suppress(OSError):
                    found = os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > OLD_PART_S:
                        self.remove(name)
        return names

    def read(self, name: str, limit: int) -> Optional[bytes]:
        """The bytes of a file, None where there is none of at most `limit` bytes that may be read."""
        try:
            with os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
                data = file.read(limit + 1)
        except OSError:
            return None
        return data if len(data) <= limit else None

    def write(self, name: str, data: bytes, sync: bool) -> None:
        """Replace a file in one step. With `sync` it outlives a loss of power, which costs two disk syncs."""
        part = self._part(data, sync, 0o600)
        try:
            _replace(self._at(part), self._at(name), self._descriptor, self._descriptor)
        except BaseException:
            self.remove(part)
            raise
        if sync and self._descriptor is not None:
            with contextlib.suppress(OSError):  # some network folders cannot
                os.fsync(self._descriptor)

    def publish(self, path: str, data: bytes) -> None:
        """Write a file outside the folder in one step; what stood there, also a link or a FIFO, is replaced."""
        part = self._part(data, False, 0o666)  # less the umask: people open and serve it
        try:
            _replace(self._at(part), path, self._descriptor, None)
        finally:
            self.remove(part)

    def _part(self, data: bytes, sync: bool, mode: int) -> str:
        """A new file of a random name that holds `data`; its name."""
        name = f"{uuid.uuid4().hex}.part"
        try:
            descriptor = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except BaseException:
            self.remove(name)
            raise
        return name

    def write_over(self, name: str, data: bytes) -> bool:
        """Put `data` into the blocks that the file has already; False where they are too few.

        Where a disk filled up in the POST there is no room for a second file. Without this the id of a paid task was
        lost where many orders share one answer.
        """
        try:
            with os.fdopen(self.open(name, os.O_RDWR), "r+b") as file:
                if len(data) > getattr(os.fstat(file.fileno()), "st_blocks", 0) * 512:
                    return False
                file.write(data)
                file.truncate()
                os.fsync(file.fileno())
                return True
        except OSError:
            return False

    def remove(self, name: str) -> None:
        """Unlink a file that may be gone already."""
        with contextlib.suppress(OSError):
            os.unlink(self._at(name), dir_fd=self._descriptor)


class Locks:
    """The locks in a state folder, a byte of one file each, for all threads of this process.

    A lock ends with its process, however that ends: a process id in a file would outlive a kill and name a stranger later.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._descriptor: Optional[int] = None
        self._held: dict[int, set[str]] = {}  # by place: two names may share one
        self._guard = threading.Lock()

    def open(self) -> int:
        """The lock file, made where it is not there yet. Raises OSError."""
        if self._descriptor is None:
            with StateFolder(self._folder, make=True) as state:
                self._descriptor = state.open("locks", os.O_RDWR | os.O_CREAT)
        return self._descriptor

    def acquire(self, name: str) -> bool:
        """Take a lock without waiting; False where another process holds it."""
        place = _place_of(name)
        with self._guard:
            if place in self._held:
                self._held[place].add(name)
                return True
            try:
                descriptor = self.open()
            except OSError:  # no state folder to lock in: no reason to leave a paid picture where it is
                return True
            try:
                _lock(descriptor, place, True)
            except OSError as error:  # where it is another one, the file system knows no locks: one process is all it can do
                if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    return False
            self._held[place] = {name}
            return True

    def release(self, name: str) -> None:
        """Give a lock back; never raises."""
        place = _place_of(name)
        with self._guard, contextlib.suppress(OSError):
            self._held.get(place, set()).discard(name)
            if self._held.get(place) == set():
                del self._held[place]
                _lock(self.open(), place, False)


def _descriptor_of(path: str, make: bool, above: Optional[int]) -> Optional[int]:
    """A folder, by its name in the folder `above` where there is one; None where the system has no such descriptors."""
    name = path if above is None else os.path.basename(path)
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
    found = os.stat(name, dir_fd=above, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(0, f"{path} is a link or a file, not a folder")
    if hasattr(os, "geteuid") and os.geteuid() not in (0, found.st_uid):
        raise OSError(0, f"{path} belongs to another user")
    if not CAN_BE_RELATIVE:
        return None
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | NO_LINK, dir_fd=above)
    if make:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o700)  # whatever the umask, and nobody else's to look into
    return descriptor


def _place_of(name: str) -> int:
    return zlib.crc32(name.encode("utf-8")) % (1 << 30)


def _lock(descriptor: int, place: int, is_taken: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, place, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK if is_taken else msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if is_taken else fcntl.LOCK_UN, 1, place)


def _replace(source: str, target: str, source_folder: Optional[int], target_folder: Optional[int]) -> None:
    # Windows refuses while somebody looks at the old file, a virus scanner or another run of ours; that is soon over.
    for attempt in range(6):
        try:
            os.replace(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            time.sleep(0.01 * 2 ** attempt)
    os.replace(source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder)
