"""Locks that end with their process, however it ends: one byte range of one file each.

Touches only the descriptor it is handed. A process id in a file would outlive a kill and name a stranger later.
"""

from __future__ import annotations

import errno
import os
import zlib


def place_of(name: str, which: int) -> int:
    """The byte that stands for the `which`-th (0 or 1) lock of `name`."""
    return zlib.crc32(name.encode("utf-8")) % (1 << 29) * 2 + which


def take(descriptor: int, place: int) -> bool:
    """Take a lock without waiting; False where another process holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, place, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError as error:
        # a file system without locks: then one process at a time is all it can do
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def give_back(descriptor: int, place: int):
    """Give a lock back; never raises."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, place, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)
    except OSError:
        pass
