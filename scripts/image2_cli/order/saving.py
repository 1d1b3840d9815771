"""From a finished task to files: each picture downloaded, named, noted and published, whatever happens to the others.

(task, record, output) in, what became of each image out. Decides nothing about money; changes no record itself: whoever
calls hands in `note`, which writes down the images before each file gets its name, so that a kill in between loses nothing.
"""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass, field
from typing import Callable, Iterator, Optional

from ..clock import Overdue
from ..errors import Image2Error
from ..pictures import download
from ..pictures.download import NotSaved, Saved, Source, is_file_with
from ..service.api import Api
from ..service.task import ImageResult, Task
from .output import Output, extension_for, first_number, path_of
from .record import MAX_IMAGES, ImageError, Record, SavedImage

AT_ONCE = 4  # downloads
LOOK_S = 30.0


def is_unchanged(image: SavedImage, folder: str) -> bool:
    """Does its file stand in the folder as it was saved?"""
    return image.file is not None and is_file_with(os.path.join(folder, image.file), image.sha256 or "")


def path_on_disk(image: SavedImage, folder: str) -> Optional[str]:
    """The path of its file, None where no regular file stands there."""
    path = os.path.join(folder, image.file or "")
    try:
        return path if image.file and stat.S_ISREG(os.lstat(path).st_mode) else None
    except OSError:
        return None


def links_only(task: Task, record: Record, folder: str) -> list[SavedImage]:
    """What is known of each image where nothing is to be downloaded."""
    return [_known(image, record, folder) or _unsaved(image) for image in images_of(task, record)]


def images_of(task: Task, record: Record) -> tuple[ImageResult, ...]:
    """The images of the task, never more than were ordered."""
    return task.images[:record.wanted or MAX_IMAGES]


def _known(image: ImageResult, record: Record, folder: str) -> Optional[SavedImage]:
    before = record.images[image.index] if image.index < len(record.images) else None
    return before if before and is_unchanged(before, folder) else None


def _unsaved(image: ImageResult) -> SavedImage:
    error = None
    if not image.is_there:
        error = ImageError("task_failed", server_message=image.error or image.status)
    elif not image.url:  # it came inside the answer: to forget it would lose it
        error = ImageError("not_saved", "It came inside the answer, without a URL.")
    return SavedImage(image.index, image.url, image.revised_prompt, error=error)


@dataclass
class Saving:
    """The saving of one order's pictures. `claim(path)`: may this order replace what stands there? `warnings` are for the
    user."""

    task: Task
    record: Record
    output: Output
    stem: str
    source: Source
    api: Api
    deadline: float
    note: Callable[[list[SavedImage]], None]
    claim: Callable[[str], bool]
    images: list[SavedImage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _before: dict[int, SavedImage] = field(default_factory=dict)  # the images that were saved before

    def run(self) -> list[SavedImage]:
        """Save every picture that does not stand on disk as it was saved; what became of each image."""
        self._before = {image.index: image for image in self.record.images if image.file}
        wanted = []
        for image in images_of(self.task, self.record):
            known = _known(image, self.record, self.output.folder)
            self.images.append(known or _unsaved(image))
            wanted += [image] if image.is_there and not known else []
        extra = len(self.task.images) - len(self.images)
        if extra > 0:
            self.warnings.append(f"The service gave {extra} images more than were ordered; they are left out.")
        first = 1
        if not any(is_unchanged(image, self.output.folder) for image in self.images):
            named = self.output._replace(overwrite=self.output.overwrite or self.record.overwrite)
            first = first_number(named, self.stem, len(self.images))
        stale = self._fetch(wanted, first)
        if stale and self.task.id and self.source.clock.now() < self.deadline:
            self._fetch(self._fresh(stale), first)
        self._leave_what_was_changed()
        if not any(image.error and image.error.code == "not_saved" for image in self.images):
            for path in download.leftovers(self.output.folder, self.record.id):
                download.remove(path)
        return self.images

    def _fetch(self, wanted: list[ImageResult], first: int) -> list[ImageResult]:
        """Download `wanted` and publish each as it comes; returns those whose link has expired.

        What is left of a download that did not end stays where it is: the next run goes on from there.
        """
        works, ready, stale = [], [], []
        for image in wanted:
            try:
                part = self._begun(image.index) or download.new_part(self.output.folder, self.record.id, image.index)
            except NotSaved as error:
                self.images[image.index].error = ImageError("not_saved", error.message)
                continue
            ready.append((image, part))
            before = self._before.get(image.index)
            if before and is_file_with(part, before.sha256 or ""):  # its link may be dead by now
                works.append(functools.partial(download.examine, part))
            elif image.data:
                works.append(functools.partial(download.unpack, image.data, part))
            else:
                works.append(functools.partial(download.fetch, image.url or "", part, self.source, self.deadline))
        seconds = max(0.0, self.deadline - self.source.clock.now()) + 1.0
        for ended in self.source.clock.each(works, seconds, AT_ONCE):
            image, part = ready[ended.number]
            problem: Optional[BaseException] = ended.error or self._publish(image.index, ended.result, first)
            if isinstance(problem, Overdue):
                problem = NotSaved("The time was up before the download ended.", is_begun=True)
            if isinstance(problem, NotSaved):
                self.images[image.index].error = ImageError("damaged" if problem.is_final else "not_saved", problem.message)
                stale += [image] if problem.stale else []
                if not problem.is_begun:
                    download.remove(part)
            elif problem:
                raise problem
        return stale

    def _leave_what_was_changed(self) -> None:
        """A picture that cannot be fetched again, but whose file stands there, edited since: that is what there is."""
        for index, before in self._before.items():
            error = self.images[index].error if index < len(self.images) else None
            if error and error.code == "not_saved" and path_on_disk(before, self.output.folder):
                self.images[index] = before
                self.warnings.append(f"{before.file} was changed since it was saved; it is left as it is.")

    def _publish(self, index: int, saved: Saved, first: int) -> Optional[NotSaved]:
        """Name a picture; the record says so first."""
        entry, extension = self.images[index], extension_for(self.output, saved.extension)
        for path in self._names(index, first + index, extension):
            overwrite = self._may_replace(path)
            damaged = ImageError("damaged", f"{saved.damaged} It is kept as it came.") if saved.damaged else None
            entry.file, entry.error = os.path.basename(path), damaged
            entry.width, entry.height = saved.width, saved.height
            entry.bytes, entry.sha256 = saved.bytes, saved.sha256
            self.note(self.images)
            try:
                if download.publish(saved.part, path, overwrite):
                    break
            except OSError as error:
                entry.file = entry.sha256 = None
                return NotSaved(f"The disk refused {path} ({error.strerror or error}).")
        self._warn(entry, saved, extension)
        return None

    def _names(self, index: int, number: int, extension: str) -> Iterator[str]:
        """Paths to try: the one the picture had before, then numbered ones."""
        before = self._before[index].file if index in self._before else None
        if before and before.endswith(extension):
            yield os.path.join(self.output.folder, before)
        while True:
            yield path_of(self.output, self.stem, number, extension)
            number += 1

    def _may_replace(self, path: str) -> bool:
        """Was this command told to overwrite, or the one that ordered, which did not mean what came there since?"""
        if not self.output.overwrite:
            try:
                is_older = os.lstat(path).st_mtime <= self.record.sent_s
            except OSError:
                is_older = True
            if not (self.record.overwrite and is_older):
                return False
        return self.claim(path)

    def _warn(self, entry: SavedImage, saved: Saved, extension: str) -> None:
        asked = self.record.request.get("size")
        real = f"{entry.width}x{entry.height}"
        if isinstance(asked, str) and asked not in ("auto", real) and entry.width:
            self.warnings.append(f"Asked for {asked[:20]}, got {real}.")
        if saved.damaged:
            self.warnings.append(f"{entry.file}: {saved.damaged}")
        elif self.output.suffix and extension != self.output.suffix:
            self.warnings.append(f"The picture is {saved.format}, so it was saved as {extension}.")

    def _begun(self, index: int) -> Optional[str]:
        """The beginning of a download that an earlier run left, to go on from."""
        found = download.leftovers(self.output.folder, f"{self.record.id}-{index}")
        return next((path for path in found if stat.S_ISREG(os.lstat(path).st_mode)), None)

    def _fresh(self, stale: list[ImageResult]) -> list[ImageResult]:
        """The same images with the links that the service gives now."""
        seconds = min(LOOK_S, max(1.0, self.deadline - self.source.clock.now()))
        try:
            task = self.api.look(self.task.id or "", seconds)
        except Image2Error:
            return []
        wanted = {image.index for image in stale}
        fresh = [image for image in images_of(task, self.record) if image.is_there and image.index in wanted]
        for image in fresh:
            self.images[image.index] = _unsaved(image)
        return fresh
