"""One order of this run, and the one law of money: what the same command does again is decided here, for every verb.

Joins request, record, service and saving, each step on disk before the next is made. Prints nothing, starts no thread;
what it knows at any moment stands in the `Order`, so that a run that is interrupted can still say it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any, Callable, Collection, Optional, Protocol

from ..answer import Answer, build
from ..clock import Clock, Interrupted
from ..errors import Image2Error
from ..pictures.download import Source
from ..service.api import Api
from ..service.task import ImageResult, Task
from .fields import ImageRequest
from .output import Output, slug
from .record import (
    ACCEPTED,
    BEFORE_A_TASK,
    FAILED,
    LINKED,
    NOT_SENT,
    PARTIAL,
    SAVED,
    SENDING,
    UNKNOWN,
    Record,
    SavedImage,
    charged,
    end_of,
    moment,
)
from .saving import Saving, images_of, is_unchanged, links_only, path_on_disk
from .schedule import Watch, is_whole
from .store import Index, Store

SUBMIT_S, LEAST_SUBMIT_S = 60.0, 3.0  # an asynchronous order answers at once; no order is given up sooner than this
AGE_OF_A_STRANGER_S = 3600.0  # of a task that was not ordered from here
SEND, REPORT, FOLLOW = "send", "report", "follow"


class Progress(Protocol):
    """Who tells people what goes on: `cli.progress.Progress`."""

    def line(self, text: str) -> None: ...
    def submitted(self, task_id: Optional[str]) -> None: ...
    def looked(self, watch: Watch) -> None: ...
    def tick(self, counts: Callable[[], dict[str, int]]) -> None: ...


@dataclass(frozen=True)
class Tools:
    """What an order works with. `interval`: seconds between looks, instead of the schedule."""

    api: Api
    clock: Clock
    progress: Progress
    base_url: str
    log: Optional[Callable[[str], None]] = None
    interval: Optional[float] = None


def next_step(record: Optional[Record], reorder: Collection[str] = ()) -> str:
    """The law: what a command does whose last order stands so. It never depends on how long ago that was.

    `reorder`: the states in which the user wants another order. What may have been accepted is never sent again unasked.
    """
    if record is None or record.state == NOT_SENT or record.state in reorder:
        return SEND
    return REPORT if record.state in (SENDING, UNKNOWN, FAILED) else FOLLOW


class Order:
    """One order. `record` is its file, or what is to become one; `task` what the service last said.

    `request` is None where only the task is known; `line` is its place in a batch; `error` how it ended, None where all
    is well; `is_over`: nothing more will be done for it in this run; `is_resumed`: an earlier run ordered it;
    `is_reported`: an earlier run has settled it, this one only says so.
    """

    def __init__(self, store: Store, output: Output, record: Record, request: Optional[ImageRequest] = None) -> None:
        self.store, self.output, self.request = store, output, request
        self.line = record.batch_line if request else None
        self._new = record
        self._adopt(record)
        self.warnings: list[str] = []
        self.error: Optional[Image2Error] = None
        self.is_over = self.is_reported = False

    def _adopt(self, record: Record) -> None:
        self.record, self.task = record, Task(record.task_id, record.status, None, ())
        self.is_resumed = record.state not in BEFORE_A_TASK

    @property
    def charged(self) -> str:
        """What the order may have cost by now."""
        return charged(self.record)

    @property
    def stem(self) -> str:
        """The file's name without number and suffix."""
        return self.output.stem or self.record.stem or f"image2-{slug(self.record.task_id)}"

    # --- the law

    def lock(self) -> bool:
        """Become the one who may send this order, until the answer is on disk; False while another living process is."""
        return self.request is None or self.store.lock(self._new.fingerprint)

    def decide(self, reorder: Collection[str], index: Optional[Index] = None) -> Optional[str]:
        """What this run does for the order; None while another living process is sending the same one."""
        step = FOLLOW
        if self.request:
            is_ours = self.lock()
            found = self.store.newest(self._new.fingerprint, index)
            if not is_ours:
                self.record = found or self._new
                return None
            step = next_step(found, reorder)
            if step == SEND or found is None:
                self.record = self._following(found)
                return SEND
            self.store.unlock(found.fingerprint)
            self._adopt(found)
        asks_again = self.request is None and self.record.state == PARTIAL  # `wait` looks: a late picture may have come
        if step == FOLLOW and (asks_again or not self._is_as_saved()):
            return FOLLOW
        self.error, self.is_over, self.is_reported = end_of(self.record), True, True
        return REPORT

    def _following(self, found: Optional[Record]) -> Record:
        """The record of an order that comes after `found`, the last one of this command."""
        if found is None:
            return self._new
        if found.state != NOT_SENT:
            return dataclasses.replace(self._new, sequence=found.sequence + 1)
        # it takes that one's place, but under a new id: a service may replay its answer to the old one
        return dataclasses.replace(self._new, sequence=found.sequence, created_s=found.created_s)

    def _is_as_saved(self) -> bool:
        there = [image for image in self.record.images if image.file]
        is_settled = self.record.state in (SAVED, PARTIAL) and bool(there)
        if self.record.task_id is None and not any(image.url for image in there):  # nothing brings these back
            return is_settled and all(path_on_disk(image, self.output.folder) for image in there)
        return is_settled and all(is_unchanged(image, self.output.folder) for image in there)

    # --- ordering

    def send(self, tools: Tools, seconds: float, request: ImageRequest, asynchronous: bool) -> None:
        """POST once, with the record written before and after. `seconds`: what is left of this run's time.

        Raises what `submit` raises; the record then says whether the order may have been accepted.
        """
        record, wall = self.record, tools.clock.wall()
        record.state, record.sent_s, record.created_s = SENDING, wall, record.created_s or wall
        try:
            self.store.save(record, sync=True)
        except OSError as error:
            record.state = NOT_SENT
            raise Image2Error("output_not_writable", f"The record of the order cannot be written below {self.output.folder} "
                              f"({error.strerror or error}); nothing was sent. Choose another --out.") from None
        body = json.dumps(request.payload(asynchronous)).encode("ascii")
        seconds = max(LEAST_SUBMIT_S, seconds)
        try:
            task = tools.api.submit(body, record.id, min(SUBMIT_S, seconds) if asynchronous else seconds,
                                    request.has_local_image)
        except (Image2Error, Interrupted) as end:
            record.state = NOT_SENT if end.charged == "no" else UNKNOWN
            record.server_message = end.server_message if isinstance(end, Image2Error) else None
            self.note()
            raise
        self._accepted(task, tools.clock.wall())
        self.store.unlock(record.fingerprint)
        tools.progress.submitted(task.id)

    def _accepted(self, task: Task, accepted_s: float) -> None:
        record, self.task = self.record, task
        images = images_of(task, record)
        if any(image.data for image in images):
            try:
                self.store.stash(record, [image.data for image in images])
            except OSError as error:
                self.warn(f"The answer could not be kept ({error.strerror or error}).")
        record.state, record.task_id, record.accepted_s = ACCEPTED, task.id, accepted_s
        record.status, record.server_message = task.status, None
        record.images = [SavedImage(image.index, image.url, image.revised_prompt) for image in images]
        self.note(sync=True)

    # --- waiting

    def watch(self, tools: Tools) -> Optional[Watch]:
        """What to wait for, or None where nothing more will come."""
        record, task = self.record, self.task
        if record.task_id is None:
            self.task = task if task.images else self._recalled()
            return None
        outcome = task.outcome(self.record.wanted)
        if not self.is_resumed and (outcome == "failed" or (outcome == "done" and is_whole(task, self.record.wanted))):
            return None
        age = max(0.0, tools.clock.wall() - record.accepted_s) if record.accepted_s else AGE_OF_A_STRANGER_S
        now = tools.clock.now()
        return Watch(now - age, now, self.is_resumed, self.record.wanted, tools.interval)

    def _recalled(self) -> Task:
        """Resumed without a task id: the links, or the data kept from the answer, are all there is."""
        data = self.store.stashed(self.record)
        images = self.record.images or [SavedImage(index) for index in range(len(data))]
        return Task(None, self.record.status or "completed", None, tuple(
            ImageResult(image.index, image.url, data[image.index] if image.index < len(data) else None,
                        image.revised_prompt) for image in images))

    def recall_links(self) -> bool:
        """Fall back on what was known of the pictures before the task was forgotten; False where that is nothing."""
        task = self._recalled()
        if any(image.is_there for image in task.images):
            self.task = task
        return self.task is task

    def conclude(self) -> Optional[Image2Error]:
        """The task is over: the error of one that failed, or that shows no picture yet."""
        record, task = self.record, self.task
        record.status = task.status or record.status
        if any(image.is_there for image in images_of(task, record)):
            return None
        if record.task_id is None:
            gone = Image2Error("not_saved", "The pictures came inside the answer, without a link, and are not all here any "
                               "more: they cannot be fetched again. Tell the user; --new orders them anew, if they agree.")
            gone.retryable = gone.resumes = False
            record.state = PARTIAL
            self.note()
            return gone
        if task.outcome(self.record.wanted) != "failed" and not task.reason:
            return Image2Error("no_images", "The task is completed, but the service shows no image of it yet. Look again "
                               "later; it is free.")
        return self.fail(task.reason or record.status)

    def fail(self, words: Optional[str]) -> Optional[Image2Error]:
        """The task failed, for good; the service's words say why."""
        self.record.state, self.record.server_message = FAILED, words
        self.note()
        return end_of(self.record)

    # --- saving

    def save(self, tools: Tools, deadline: float) -> None:
        """Save every picture that is not saved yet, beside any other run of the same order."""
        while not self.store.lock(self.record.id):
            if tools.clock.now() >= deadline:
                self.error = Image2Error("not_saved", "Another run is saving these pictures and has not ended. Look again "
                                         "later; it is free.")
                return
            tools.clock.sleep(0.1)
        try:
            record = self.record = self.store.reload(self.record)
            output = self.output._replace(suffix=self.output.suffix or record.suffix)
            source = Source(tools.base_url, tools.clock, tools.log)
            saving = Saving(self.task, record, output, self.stem, source, tools.api, deadline, self._note_images,
                            lambda path: self.store.claim(path, record.id))
            images = saving.run()
            for warning in saving.warnings:
                self.warn(warning)
            self._settle(images, SAVED)
        finally:
            self.store.unlock(self.record.id)

    def keep_links(self) -> None:
        """Only links are wanted."""
        self.record = self.store.reload(self.record)
        self._settle(links_only(self.task, self.record, self.output.folder), LINKED)

    def forget_data(self) -> None:
        """Pictures that came inside the answer filled the memory until the end of a batch."""
        self.task = self.task._replace(images=tuple(image._replace(data=None) for image in self.task.images))

    def _settle(self, images: list[SavedImage], state: str) -> None:
        record = self.record
        record.images, record.status = images, self.task.status or record.status
        if any(image.error and image.error.code == "not_saved" for image in images):
            record.state = ACCEPTED
        else:
            is_partial = len(images) < self.record.wanted or any(image.error for image in images)
            record.state = PARTIAL if is_partial else state
            record.server_message = self.task.reason if is_partial else None
        self.error = end_of(record)
        self.note()
        if record.is_settled:  # after the note: killed in between, the pictures lay on disk and were not known
            self.store.drop_stash(record)

    def _note_images(self, images: list[SavedImage]) -> None:
        self.record.images = images
        self.note()

    def note(self, sync: bool = False) -> None:
        """Write the record. After the POST a full disk must not stop the order."""
        try:
            self.store.save(self.record, sync)
        except OSError as error:
            if not self.store.write_over(self.record):
                self.warn(f"The record could not be written ({error.strerror or error}).")

    def warn(self, text: str) -> None:
        """Tell the user once."""
        if text not in self.warnings:
            self.warnings.append(text)

    # --- the answer

    def answer(self, next_command: Optional[str], is_sandbox: bool, status: Optional[str] = None) -> Answer:
        """The JSON answer about this order alone."""
        error, record, task, warnings = self.error, self.record, self.task, list(self.warnings)
        if self.is_reported and self.request and record.is_settled:
            warnings.insert(0, f"Ordered {moment(record.sent_s)} by an earlier run; nothing was ordered now. For another "
                            "picture add --new.")
        is_running = not self.is_reported and task.outcome(self.record.wanted) == "running"
        images = {image.index: SavedImage(image.index, image.url) for image in images_of(task, record)}
        images.update((image.index, image) for image in record.images if image.url or image.file or image.error)
        return build(
            status or task.status or (error.code if error else "completed"), error=error, task_id=record.task_id,
            charged=charged(record, is_sandbox), next_command=next_command,
            images=[self._image(image) for image in images.values() if image.url or image.file or image.error],
            sandbox=is_sandbox or None, resumed=self.is_resumed or None,
            warnings=warnings or None, progress=task.progress if is_running else None)

    def _image(self, image: SavedImage) -> dict[str, Any]:
        """One entry of `images`; what is null, or only repeats the prompt, is left out."""
        revised = image.revised_prompt if image.revised_prompt != self.record.prompt else None
        known = {"width": image.width, "height": image.height, "bytes": image.bytes, "url": image.url,
                 "revised_prompt": revised, "error": image.error.as_json() if image.error else None}
        return {"index": image.index, "path": path_on_disk(image, self.output.folder),
                **{name: value for name, value in known.items() if value is not None or name == "url"}}


def new_order(store: Store, output: Output, request: ImageRequest, stem: str, fingerprint: str, service: str,
              line: Optional[int] = None) -> Order:
    """An order of this command; its record is on disk once it is being sent."""
    record = Record(str(uuid.uuid4()), fingerprint, service, NOT_SENT, 1, request=request.described(), stem=stem,
                    suffix=output.suffix, overwrite=output.overwrite, batch_line=line)
    return Order(store, output, record, request)


def order_of_task(store: Store, output: Output, task_id: str, service: str) -> Order:
    """The order of a task that is not recorded; it exists, so it was accepted."""
    fingerprint = hashlib.sha256(f"task {task_id}".encode()).hexdigest()[:32]
    return Order(store, output, Record(str(uuid.uuid4()), fingerprint, service, ACCEPTED, 1, task_id=task_id))
