"""The records of one output folder: written before an order is sent, found again by what was ordered, and locked.

`OUT/.image2/FINGERPRINT-SEQUENCE-CREATED.json` is an order that is not settled; settled ones lie in `done/`, with task
and state in their names. So what a command goes on with is found by names alone: with 10,000 finished orders in a
folder version 1.0 read them all. The highest sequence of a fingerprint is what its command means, whatever the clock says.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import uuid
from collections import Counter
from typing import NamedTuple, Optional

from .record import ACCEPTED, BEFORE_A_TASK, MAX_RECORD, NOT_SENT, SENDING, UNKNOWN, Record, parse
from .state_folder import Locks, StateFolder

ACTIVE, DONE = "", "done"  # folders in the state folder
EVERYWHERE = ACTIVE, DONE, ACTIVE  # a record that moves from one to the other while both are listed is seen all the same
NAME = re.compile(r"([0-9a-f]{32})-([0-9]{1,9})-([0-9]{1,11})(?:-([0-9a-f]{12})-([a-z]+))?\.json")
MAX_DATA = 400_000_000  # bytes of pictures that came inside an answer
TRIES = 3  # to read a record that is being moved


class Entry(NamedTuple):
    """What a record's name tells; entries sort by age. `task` is a digest of its task's id, `state` its state; None where
    it is not settled."""

    created_s: int
    name: str
    fingerprint: str
    sequence: int
    task: Optional[str]
    state: Optional[str]

    @property
    def place(self) -> str:
        """The folder that it lies in."""
        return DONE if self.state else ACTIVE


Index = dict[str, list[Entry]]


class Store:
    """The records of the output folder `folder`. For any number of threads, each at an order of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._locks = Locks(folder)
        self._claimed: dict[str, str] = {}
        self._settled: dict[str, str] = {}  # the names of the settled records that were read or written, by id

    def problem(self) -> Optional[str]:
        """Why records cannot be kept here, or None. Makes the state folder."""
        try:
            with StateFolder(self.folder, DONE, make=True):
                self._locks.open()
            return None
        except OSError as error:
            return error.strerror or str(error)

    # --- writing

    def save(self, record: Record, sync: bool = False) -> None:
        """Write the record where its state belongs. Raises OSError where the disk refuses."""
        data, is_settled, name = record.as_text().encode("ascii"), record.is_settled, _active_name(record)
        before = self._settled.pop(record.id, None)
        settled = f"{name[:-5]}-{_digest(record.task_id or '')}-{record.state}.json"
        with StateFolder(self.folder, DONE if is_settled else ACTIVE, make=True) as state:
            state.write(settled if is_settled else name, data, sync)
            if is_settled and before and before != settled:
                state.remove(before)
        if is_settled or before:  # settled now; or before, and at work again: its files were gone
            with StateFolder(self.folder, ACTIVE if is_settled else DONE, make=True) as state:
                state.remove(name if is_settled else before or "")
        if is_settled:
            self._settled[record.id] = settled

    def write_over(self, record: Record) -> bool:
        """Put the record into the blocks of its file, on a disk that is full; False where that cannot be."""
        try:
            with StateFolder(self.folder) as state:
                return state.write_over(_active_name(record), record.as_text().encode("ascii"))
        except OSError:
            return False

    def reload(self, record: Record) -> Record:
        """The record as another process has left it meanwhile."""
        fresh = self.newest(record.fingerprint)
        # a file that is behind is this run's own, of before the disk was full: it does not know the task
        is_behind = fresh is not None and fresh.state in BEFORE_A_TASK and record.state not in BEFORE_A_TASK
        return record if fresh is None or fresh.id != record.id or is_behind else fresh

    def stash(self, record: Record, data: list[Optional[str]]) -> None:
        """Keep pictures that came inside the answer itself: no later look could bring them back."""
        with StateFolder(self.folder, make=True) as state:
            state.write(f"{record.id}.data", json.dumps(data).encode("ascii"), True)

    def stashed(self, record: Record) -> list[Optional[str]]:
        """What `stash` kept, an entry an image; empty where there is nothing."""
        data = self._read(ACTIVE, f"{record.id}.data", MAX_DATA)
        try:
            found = json.loads(data) if data else []
        except (ValueError, RecursionError):
            return []
        return [item if isinstance(item, str) else None for item in found] if isinstance(found, list) else []

    def drop_stash(self, record: Record) -> None:
        """The pictures are on disk: forget the answer they came in."""
        with contextlib.suppress(OSError), StateFolder(self.folder) as state:
            state.remove(f"{record.id}.data")

    def keep(self, name: str, text: str) -> str:
        """Keep a text of the user's for the next run; its path. Raises OSError."""
        with StateFolder(self.folder, make=True) as state:
            state.write(name, text.encode("utf-8", "replace"), False)
            return os.path.join(state.path, name)

    # --- finding

    def index(self) -> Index:
        """The entries of every fingerprint, by names alone: what a batch looks its orders up in."""
        found: Index = {}
        for entry in self._entries(*EVERYWHERE):
            found.setdefault(entry.fingerprint, []).append(entry)
        return found

    def newest(self, fingerprint: str, index: Optional[Index] = None) -> Optional[Record]:
        """The order that the command with this fingerprint means, None where there is none."""
        entries = index.get(fingerprint, []) if index is not None else self._entries(*EVERYWHERE, begin=fingerprint)
        for _ in range(TRIES):
            for entry in sorted(entries, key=lambda entry: (entry.sequence, entry.place == ACTIVE), reverse=True):
                record = self.read(entry)
                if record:
                    return record
            if not entries:
                return None
            entries = self._entries(*EVERYWHERE, begin=fingerprint)  # another run may just have settled it: its file moved
        # Its name alone says that there was an order; a record of root's, or a torn one, was paid for again.
        last = max(entries, key=lambda entry: entry.sequence)
        return Record(str(uuid.uuid4()), fingerprint, "", UNKNOWN, last.sequence, last.created_s, last.created_s)

    def read(self, entry: Entry) -> Optional[Record]:
        """The record behind a name, None where it is torn, foreign or not what its name says."""
        data = self._read(entry.place, entry.name, MAX_RECORD)
        record = parse(data) if data else None
        if record is None or (record.fingerprint, record.sequence) != (entry.fingerprint, entry.sequence):
            return None
        if record.state in (SENDING, UNKNOWN) and self.stashed(record):
            record.state = ACCEPTED  # killed between keeping the pictures of the answer and saying so
        if entry.state:
            self._settled[record.id] = entry.name
        return record

    def of_task(self, task_id: str, service: str) -> Optional[Record]:
        """The record of a task of that service, or None."""
        digest = _digest(task_id)
        entries = [*self._entries(ACTIVE), *(entry for entry in self._entries(DONE) if entry.task == digest)]
        return next((record for record in map(self.read, entries)
                     if record and (record.task_id, record.service) == (task_id, service)), None)

    def unfinished(self, service: str) -> list[Record]:
        """Every order of that service that was accepted and whose pictures are not all settled, oldest first."""
        found = map(self.read, self._entries(ACTIVE))
        return [record for record in found if record and (record.state, record.service) == (ACCEPTED, service)]

    def recent(self, limit: int) -> list[Record]:
        """The orders of the folder: those that are not settled, then the newest, `limit` at most."""
        active = list(filter(None, map(self.read, reversed(self._entries(ACTIVE)))))
        active.sort(key=lambda record: record.state == NOT_SENT)  # twelve refused ones hid one that was accepted
        done = filter(None, map(self.read, reversed(self._entries(DONE))))
        return list(itertools.islice(itertools.chain(active, done), limit))

    def all(self) -> list[Record]:
        """Every readable record, oldest first."""
        return list(filter(None, map(self.read, self._entries(ACTIVE, DONE))))

    def states(self) -> dict[str, int]:
        """How many orders stand where; settled ones are counted by their names."""
        active = [record.state for record in map(self.read, self._entries(ACTIVE)) if record]
        return dict(Counter([*active, *(entry.state for entry in self._entries(DONE) if entry.state)]))

    # --- locks

    def lock(self, name: str) -> bool:
        """Take a lock without waiting; False where another living process holds it."""
        return self._locks.acquire(name)

    def unlock(self, name: str) -> None:
        """Give a lock back."""
        self._locks.release(name)

    def claim(self, path: str, order_id: str) -> bool:
        """May this order replace what stands at `path`? Not what another order of the same run was just paid for."""
        return self._claimed.setdefault(os.path.normcase(path), order_id) == order_id

    def _read(self, where: str, name: str, limit: int) -> Optional[bytes]:
        with contextlib.suppress(OSError), StateFolder(self.folder, where) as state:
            return state.read(name, limit)
        return None

    def _entries(self, *places: str, begin: str = "") -> list[Entry]:
        """Oldest first, those whose names begin so."""
        found: list[Entry] = []
        for place in places:
            with contextlib.suppress(OSError), StateFolder(self.folder, place) as state:
                entries = [_entry(name) for name in state.names() if name.startswith(begin)]
                found += [entry for entry in entries if entry and entry.place == place]
        return sorted(found)


def _entry(name: str) -> Optional[Entry]:
    found = NAME.fullmatch(name)
    if not found:
        return None
    fingerprint, sequence, created_s, task, state = found.groups()
    return Entry(int(created_s), name, fingerprint, int(sequence), task, state)


def _active_name(record: Record) -> str:
    return f"{record.fingerprint}-{record.sequence:04d}-{int(record.created_s):010d}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def write_file(path: str, text: str) -> None:
    """Write a file of the output folder in one step; what stood there, also a link or a FIFO, is replaced."""
    with StateFolder(os.path.dirname(path), make=True) as state:
        state.publish(path, text.encode("utf-8", "replace"))
