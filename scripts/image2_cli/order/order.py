"""One order from intent to files: record, submit, wait, download, each step on disk before the next is made.

Above the rooms it joins (api, polling, download, store, output), below the verbs and engine. Prints nothing; what it
knows at any moment stands in the `Order`, so that a run that is interrupted can still say it.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple, Optional

from ..clock import Interrupted
from ..errors import UNAVAILABLE, Image2Error
from ..service.task import ImageResult, Task
from . import output as places
from . import record as recorded
from . import store as records
from .fields import ImageRequest
from .pace import LONGEST_RETRY_AFTER_S, backoff
from .polling import Watch, is_whole, wait_for
from .saving import found, list_links, save_missing

TRIES = 3  # of a POST that provably was not accepted
SAVING_S = 3.0  # what saving may take past the time of the wait: a finished task should not end unsaved
LEAST_SAVING_S = 1.0  # even where an order was answered at the very end
SUBMIT_S = 60.0  # an asynchronous order answers at once; past this it is unknown whether it was taken
LEAST_SUBMIT_S = 3.0  # an order is not given up sooner, however little time is left
AGE_OF_A_STRANGER_S = 3600.0  # of a task that was not ordered from here


class Tools(NamedTuple):
    """What an order works with. `tell` has the methods of `progress.Progress`."""

    api: object
    clock: object
    store: records.Store
    tell: object
    service: str
    loopback: bool
    log: object = None
    interval: Optional[float] = None


class Order:
    """One order of this run. `record` is its file, `task` what the service last said, `images` the answer's."""

    def __init__(self, tools: Tools, place: places.Place, record=None, task_id=None):
        self.tools, self.place, self.record = tools, place, record
        self.resumed = record is not None
        self.task = Task(task_id, None, None, ()) if task_id else None
        self.warnings = []
        self.images = []

    @property
    def task_id(self):
        """The task's id, None while there is none."""
        return (self.record or {}).get("task_id") or (self.task.id if self.task else None)

    @property
    def charged(self) -> str:
        """What the order may have cost by now."""
        state = (self.record or {}).get("state")
        if state in (recorded.SENDING, recorded.UNKNOWN):
            return "maybe"
        return "yes" if state in (recorded.SUBMITTED, recorded.FINISHED) or self.task_id else "no"

    @property
    def is_saved(self) -> bool:
        """Every picture the record knows of stands on disk."""
        images = self.record.images if self.record else []
        return bool(images) and all(image.get("path") and os.path.exists(image["path"]) for image in images)

    def take(self, request: ImageRequest, stem: str, anew: bool = False):
        """Find the record this command goes on with, or write the intent of a new order.

        Raises `outcome_unknown` where the same order may have been accepted minutes ago.
        """
        store, service = self.tools.store, self.tools.service
        mark = request.fingerprint(service, self.place.stem or "")  # without the folder: the records lie in it
        record = None if anew else store.to_continue(mark, service)
        if record and record["state"] in (recorded.SENDING, recorded.UNKNOWN):
            self.record = record
            raise Image2Error("outcome_unknown", "The same order was sent %d minutes ago and may have been accepted; it is "
                              "not repeated. Tell the user; if they agree to a possible second charge, add --new."
                              % (record.age_s // 60))
        if record:
            self.record, self.resumed = record, record["state"] == recorded.SUBMITTED
        else:
            self.begin(request, stem, mark)

    def begin(self, request: ImageRequest, stem: str, mark: str):
        """Write the intent of a new order, unless it stands already. Nothing may be sent before this returns."""
        if self.record is not None:
            return
        try:
            self.record = self.tools.store.create(mark, self.tools.service, request.described(), stem)
        except OSError as error:
            raise Image2Error("output_not_writable", "The record of the order cannot be written below %s (%s); nothing "
                              "was sent. Choose another --out." % (self.place.folder, error.strerror or error)) from None

    def submit(self, request: ImageRequest, deadline: float, asynchronous: bool = True):
        """POST the order: at most one accepted. Sent again only where it provably was not accepted."""
        clock = self.tools.clock
        for attempt in range(TRIES):
            try:
                return self.send(request, deadline - clock.now(), asynchronous)
            except Image2Error as error:
                pause = pause_before_retry(error, attempt, deadline - clock.now())
                if pause is None or attempt == TRIES - 1:
                    raise
                self.tools.tell.line("%s: next try in %.0f s" % (error.code, pause))
                clock.sleep(pause)

    def send(self, request: ImageRequest, left: float, asynchronous: bool = True):
        """POST once, with the record written before and after. `left`: seconds of this run's budget.

        Raises what `Api.submit` raises; the record then says whether the order may have been accepted.
        """
        clock = self.tools.clock
        body = json.dumps(request.payload(asynchronous)).encode("ascii")
        seconds = max(LEAST_SUBMIT_S, left)
        self.note(must=True, sync=True, state=recorded.SENDING, sent_s=clock.wall(), overwrite=self.place.overwrite,
                  suffix=self.place.suffix)
        try:
            task = self.tools.api.submit(body, self.record["id"], min(SUBMIT_S, seconds) if asynchronous else seconds)
        except (Image2Error, Interrupted) as end:
            # from now on its fate is unknown: a laptop that slept in the POST must not wake to an order that is forgotten
            self.note(state=recorded.NOT_SENT if end.charged == "no" else recorded.UNKNOWN, sent_s=clock.wall(),
                      error=end.as_json() if isinstance(end, Image2Error) else None)
            raise
        self.task = task
        if any(image.data for image in task.images) and not task.id:
            self._keep_data(task)
        self.note(sync=True, state=recorded.SUBMITTED, task_id=task.id, accepted_s=clock.wall(), error=None,
                   status=task.status, images=[found(image) for image in task.images])
        self.tools.tell.submitted(task.id)

    def follow(self, deadline: float):
        """Wait until the task is over. Raises `still_running` at the deadline, `task_failed`, `no_images`."""
        watch = self.watch()
        if watch and not wait_for(watch, self.tools.api.look, self.tools.clock, deadline, self.tools.tell.looked):
            self.task = watch.task or self.task
            if watch.task is not None:
                self._adopt()
            raise _still_running(watch)
        self.settle(watch)

    def watch(self, floor: float = 1.0):
        """What to wait for, or None where nothing more will come. `floor`: the shortest step between looks."""
        if self.task is None or self.task_id is None:
            self._remember_images()
        settled = self.task.outcome == "failed" or (self.task.outcome == "done" and is_whole(self.task, self.asked))
        if self.task_id is None or (settled and not self.resumed):
            return None
        clock = self.tools.clock
        accepted_s = (self.record or {}).get("accepted_s")
        age = max(0.0, clock.wall() - accepted_s) if isinstance(accepted_s, (int, float)) else AGE_OF_A_STRANGER_S
        return Watch(self.task_id, clock.now() - age, clock.now(), self.resumed or not self.record,
                     self.tools.interval, floor, self.asked)

    def settle(self, watch):
        """The task is over: take over what was seen. Raises `task_failed` or `no_images`."""
        if watch:
            self.task = watch.task
        images = self.task.images
        if self.task.outcome == "failed" or (images and all(image.error and not image.is_there for image in images)):
            raise self.failure()
        if not any(image.is_there for image in images):
            self._adopt()
            raise Image2Error("no_images", "The task is completed, but the service shows no image of it yet. Look again "
                              "later; it is free.")

    def collect(self, deadline: float):
        """Save every picture that is not saved yet and fill `images`. Raises `not_saved` or `some_failed`."""
        clock, store = self.tools.clock, self.tools.store
        self._adopt()
        while not store.lock(self.record["id"], records.FILES):
            if clock.now() >= deadline:
                raise Image2Error("not_saved", "Another run is saving these pictures and has not ended. Look again later; "
                                  "it is free.")
            clock.sleep(0.1)
        try:
            store.reload(self.record)
            late = max(deadline + SAVING_S, clock.now() + LEAST_SAVING_S)  # of a run whose last look took its time
            save_missing(self, max(deadline, min(clock.now() + SAVING_S, late)))
            self._finish()
        finally:
            store.unlock(self.record["id"], records.FILES)

    def leave(self):
        """Report URLs only: nothing is downloaded. Raises `not_saved` for pictures that came without one."""
        self._adopt()
        self.tools.store.reload(self.record)
        list_links(self)
        self._finish()

    @property
    def asked(self) -> int:
        """The number of images ordered; 1 where only the service knows."""
        asked = ((self.record or {}).get("request") or {}).get("n")
        return asked if type(asked) is int else 1

    @property
    def stem(self) -> str:
        """The file's name without number and suffix."""
        return self.place.stem or self.record.get("stem") or "image2-%s" % places.slug(self.task_id)

    def _finish(self):
        """Settle the record by what became of each image; raise where not all is well."""
        unsaved = [image for image in self.images if _code(image) == "not_saved"]
        failed = [image for image in self.images if _code(image) == "task_failed"]
        status = self.task.status or "completed"
        self.note(state=recorded.SUBMITTED if unsaved else recorded.FINISHED, status=status, images=self.images,
                   error=None)
        if not unsaved:
            self.tools.store.drop_stash(self.record)
        short = max(0, self.asked - len(self.images))
        total = len(self.images) + short
        if unsaved:
            raise Image2Error("not_saved", "%d of %d images are paid for but not saved; `images` has the reasons. Run "
                              "`next`: it is free." % (len(unsaved), total))
        if failed or short:
            raise Image2Error("some_failed", "%d of %d images did not come." % (len(failed) + short, total),
                              server_message=failed[0]["error"].get("server_message") if failed else None)

    def _adopt(self):
        """A task that was made elsewhere gets a record here, so that it can be gone on with."""
        if self.record is None:
            try:
                self.record = self.tools.store.create("", self.tools.service, {}, "")
            except OSError as error:
                raise Image2Error("output_not_writable", "%s is not writable (%s). Choose another --out."
                                  % (self.place.folder, error.strerror or error), charged="yes") from None
            self.note(state=recorded.SUBMITTED, task_id=self.task_id, accepted_s=None)

    def _remember_images(self):
        """Resumed without a task id: the links, or the data kept from the answer, are all there is."""
        if self.record is None or self.task_id:
            self.task = self.task or Task(self.task_id, None, None, ())
            return
        if self.task is None:
            data = self.tools.store.stashed(self.record)
            images = self.record.images or [{} for _ in data]  # killed between keeping the data and saying so
            self.task = Task(None, self.record.get("status") or "completed", None, tuple(
                ImageResult(position, image.get("url"), data[position] if position < len(data) else None,
                            image.get("revised_prompt"))
                for position, image in enumerate(images)))

    def _keep_data(self, task):
        try:
            self.tools.store.stash(self.record, [image.data for image in task.images])
        except OSError as error:
            self.warnings.append("The answer could not be kept (%s)." % (error.strerror or error))

    def note(self, must: bool = False, sync: bool = False, **changes):
        """Write the record. Before the POST it must succeed; after it, a full disk must not stop the order."""
        try:
            self.tools.store.save(self.record, sync, **changes)
        except OSError as error:
            if must:
                self.record["state"] = recorded.NOT_SENT
                raise Image2Error("output_not_writable", "The record of the order cannot be written (%s); nothing was "
                                  "sent. Choose another --out." % (error.strerror or error)) from None
            warning = "The record could not be written (%s)." % (error.strerror or error)
            if not self.tools.store.write_over(self.record) and warning not in self.warnings:
                self.warnings.append(warning)

    def failure(self) -> Image2Error:
        """The error of a task that ended failed; its record is settled."""
        words = self.task.error or next((image.error for image in self.task.images if image.error), None)
        if self.record is not None:
            self.note(state=recorded.FINISHED, status=self.task.status,
                       error={"code": "task_failed", "message": words or ""})
        ended = self.task.status if self.task.outcome == "failed" else "without a picture"
        return Image2Error("task_failed", "The task ended %s. Tell the user why; the service does not document whether it "
                           "is charged." % (ended or "failed"), server_message=words)


def _still_running(watch) -> Image2Error:
    message = "The task is still running. Run `next` to go on waiting; do not order again."
    if watch.trouble:
        message = "No news of the task: %s Run `next` to go on waiting; do not order again." % watch.trouble.message
    return Image2Error("still_running", message)


def pause_before_retry(error: Image2Error, attempt: int, left: float):
    """Seconds to wait before the same POST may go out again; None where it must not or should not."""
    if error.charged != "no" or error.exit_status != UNAVAILABLE or not error.retryable:
        return None
    pause = backoff(attempt)
    if error.retry_after_s is not None:
        pause = max(pause, error.retry_after_s)
    return pause if pause <= min(LONGEST_RETRY_AFTER_S, left) else None


def _code(image: dict):
    return (image.get("error") or {}).get("code")
