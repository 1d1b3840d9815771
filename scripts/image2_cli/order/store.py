"""What was asked and where it stands, on disk, so that any later run can finish it.

`OUT/.image2/` holds one small JSON file an order, replaced atomically and synced: before the POST (the
intent), right after it (the task id), and as pictures arrive. Touches only that folder; never the key, never
the network. What is no record is passed over.

Two byte ranges of one lock file per order say who is at it; they end with the process, however it ends:
`OWNER` is held by the run that ordered (a second identical command then makes its own pictures), `FILES` by
whoever is writing pictures or the record after the task id is known.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid

from . import locks
from .record import BEFORE_A_TASK, NOT_SENT, SENDING, SUBMITTED, UNKNOWN, Record, read

FOLDER = ".image2"
OWNER, FILES = 0, 1
# what the same command goes on with, where there are several the first of these; FINISHED is nothing to go on with
TO_CONTINUE = (SUBMITTED, SENDING, UNKNOWN, NOT_SENT)
UNKNOWN_FOR_S = 15 * 60
OLD_PART_S = 60.0  # writing a record takes milliseconds
IN_USE = (5, 32)  # Windows: access denied, sharing violation


class Store:
    """The records of one output folder. For any number of threads, each at an order of its own."""

    def __init__(self, folder: str):
        self.folder = os.path.join(folder, FOLDER)
        self._locks = None
        self._held = set()
        self._locking = threading.Lock()  # on Windows a lock is two calls on the one descriptor: seek, then lock
        self._claimed = {}  # path -> the order of this run whose picture has that name

    def create(self, fingerprint: str, service: str, request: dict, stem: str) -> Record:
        """A new order of state NOT_SENT, on disk and synced when this returns, owned by this process."""
        self._prepare()
        now = time.time()
        record = Record(version=1, id=str(uuid.uuid4()), created_s=now, sent_s=now,
                        state=NOT_SENT, service=service, fingerprint=fingerprint, request=request, stem=stem,
                        overwrite=False, suffix=None, task_id=None, accepted_s=None, status=None, images=[], error=None)
        record.path = os.path.join(self.folder, "%s-%s.json" % (
            time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)), record["id"][:8]))
        self.lock(record["id"], OWNER)
        self.save(record, True)
        return record

    def save(self, record: Record, sync: bool, **changes):
        """Apply `changes` and replace the file atomically. Raises OSError where the disk refuses.

        A kill loses nothing either way; `sync` holds against a loss of power too, and costs two disk syncs.
        """
        record.update(changes)
        self._replace(record.path, _text(record), sync)

    def write_over(self, record: Record) -> bool:
        """Put the record into the blocks that its file has already; False where they are too few.

        Where a disk filled up in the POST there is no room for a second file. Without this the id of a paid task was
        lost where many orders share one answer.
        """
        data = _text(record).encode("ascii")
        try:
            with open(record.path, "r+b") as file:
                if len(data) > getattr(os.fstat(file.fileno()), "st_blocks", 0) * 512:
                    return False
                file.write(data)
                file.truncate()
                os.fsync(file.fileno())
                return True
        except OSError:
            return False

    def _replace(self, path: str, text: str, sync: bool):
        part = "%s.%s.part" % (path, uuid.uuid4().hex)
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            _rename(part, path)
        except BaseException:
            _unlink(part)
            raise
        if sync:
            _sync_folder(self.folder)

    def put(self, path: str, text: str):
        """Write a file of the output folder or of this one in one step. Raises OSError where the disk refuses."""
        self._prepare()
        part = os.path.join(self.folder, "%s.part" % uuid.uuid4().hex)  # here `all` sweeps what a killed run left
        try:
            with open(part, "w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
            _rename(part, path)
        except BaseException:
            _unlink(part)
            raise

    def reload(self, record: Record):
        """Take over what another process wrote meanwhile."""
        fresh = read(record.path)
        # a file that is behind is this run's own, of before the disk was full: it does not know the task
        if fresh is not None and (record["state"] in BEFORE_A_TASK or fresh["state"] not in BEFORE_A_TASK):
            record.clear()
            record.update(fresh)

    def stash(self, record: Record, data: list):
        """Keep pictures that came inside the answer itself: no later look could bring them back."""
        self._replace(record.path + ".data", json.dumps(data), True)

    def stashed(self, record: Record) -> list:
        """What `stash` kept, an entry an image (text or None); empty where there is nothing."""
        try:
            with open(record.path + ".data", encoding="ascii") as file:
                data = json.load(file)
        except (OSError, ValueError):
            return []
        return [item if isinstance(item, str) else None for item in data] if isinstance(data, list) else []

    def drop_stash(self, record: Record):
        """The pictures are on disk: forget the answer they came in."""
        _unlink(record.path + ".data")

    def all(self) -> list:
        """Every readable record, oldest first."""
        try:
            paths = sorted(os.path.join(self.folder, name) for name in os.listdir(self.folder))
        except OSError:
            return []
        for path in paths:
            if path.endswith(".part") and _is_old(path):
                _unlink(path)  # of a run that was killed while it wrote
        return [record for record in map(read, paths) if record]

    def of_task(self, task_id: str, service: str):
        """The record of a task of that service, or None."""
        return next((record for record in self.all()
                     if (record["task_id"], record["service"]) == (task_id, service)), None)

    def unfinished(self, service: str) -> list:
        """Every order of that service that was accepted and whose pictures are not all settled."""
        return [record for record in self.all() if (record["state"], record["service"]) == (SUBMITTED, service)]

    def to_continue(self, fingerprint: str, service: str):
        """The order that the same command should go on with, owned by this process from here on, or None.

        Unfinished, or of unknown fate for less than 15 minutes, and of no living owner. What is accepted goes
        before what may be, and that before what is not: sending again is the last thing to do.
        """
        same = [record for record in self.all()
                if (record["fingerprint"], record["service"]) == (fingerprint, service) and self._is_open(record)]
        for record in sorted(same, key=lambda record: TO_CONTINUE.index(record["state"])):
            if not self.lock(record["id"], OWNER):
                continue
            self.reload(record)
            if self._is_open(record):
                return record
            self.unlock(record["id"], OWNER)
        return None

    @staticmethod
    def _is_open(record: Record) -> bool:
        return record["state"] in TO_CONTINUE and (
            record["state"] not in (SENDING, UNKNOWN) or record.age_s < UNKNOWN_FOR_S)

    def lock(self, name: str, which: int) -> bool:
        """Take one of the two locks of an order (by its id) without waiting; False where a living process holds it."""
        place = locks.place_of(name, which)
        with self._locking:
            if place not in self._held:
                if not self._take(place):
                    return False
                self._held.add(place)
        return True

    def unlock(self, name: str, which: int):
        """Give a lock back."""
        place = locks.place_of(name, which)
        with self._locking:
            if place in self._held:
                self._held.discard(place)
                if self._locks is not None:
                    locks.give_back(self._locks, place)

    def claim(self, path: str, order_id: str) -> bool:
        """May this order replace what stands at `path`? Not what another order of the same run has just been paid for."""
        return self._claimed.setdefault(os.path.normcase(path), order_id) == order_id

    def _take(self, place) -> bool:
        if self._locks is None:
            try:
                self._prepare()
                self._locks = os.open(os.path.join(self.folder, "locks"), os.O_RDWR | os.O_CREAT, 0o600)
            except OSError:  # as on a file system without locks: no reason to leave a paid picture where it is
                return True
        return locks.take(self._locks, place)

    def _prepare(self):
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        ignore = os.path.join(self.folder, ".gitignore")
        if not os.path.exists(ignore):
            with open(ignore, "w", encoding="ascii") as file:
                file.write("*\n")


def _text(record: Record) -> str:
    return json.dumps(record, ensure_ascii=True, indent=1)


def _is_old(path: str) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime > OLD_PART_S
    except OSError:
        return False


def _rename(part: str, path: str):
    # Windows refuses while somebody looks at the old file, a virus scanner or another run of ours; that is soon over.
    for attempt in range(6):
        try:
            os.replace(part, path)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            time.sleep(0.01 * 2 ** attempt)
    os.replace(part, path)


def _unlink(path: str):
    try:
        os.unlink(path)
    except OSError:
        pass


def _sync_folder(folder: str):
    # A rename is only lasting once its folder is synced; Windows cannot open folders and needs no such sync.
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        pass
