"""From a finished task to files: each picture downloaded, named, noted and published, whatever happens to the others.

Works on an `order.Order` that holds the lock of its files. Joins download, output and the record; decides nothing
about money.
"""

from __future__ import annotations

from ..clock import Overdue
from ..errors import NO_PICTURE, Image2Error, of_image
from ..pictures import download
from . import output as places
from .polling import LOOK_S

AT_ONCE = 4  # downloads


def save_missing(order, deadline: float):
    """Save every picture of the order's task that does not stand on disk yet; `order.images` says what became of each."""
    clock = order.tools.clock
    order.place = order.place._replace(suffix=order.place.suffix or order.record.get("suffix"))
    before = {image.get("index"): image for image in order.record.images}
    for old in download.leftovers(order.place.folder, order.record["id"]) if order.resumed else ():
        download.remove(old)
    order.images = []
    wanted = []
    for image in order.task.images:
        kept = before.get(image.index)
        if kept and _is_saved(kept):
            order.images.append(kept)
        elif image.is_there:
            order.images.append(found(image))
            wanted.append(image)
        else:
            order.images.append(_failed_image(image))
    if wanted:
        number = _numbers(order)
        stale = _fetch(order, wanted, number, deadline)
        if stale and order.task_id and clock.now() < deadline:
            _fetch(order, _fresh(order, stale, deadline), number, deadline)


def list_links(order):
    """Download nothing: `order.images` gets the URL of every picture, and the path of those saved before."""
    before = {image.get("index"): image for image in order.record.images}
    order.images = []
    for image in order.task.images:
        kept = before.get(image.index)
        if kept and _is_saved(kept):
            order.images.append(kept)
        else:
            order.images.append(found(image) if image.url else _unsaved_image(image) if image.data else _failed_image(image))


def _fetch(order, wanted, first_number, deadline) -> list:
    """Download `wanted` and publish each as it comes; returns those whose link has expired."""
    tools = order.tools
    try:
        parts = download.make_parts(order.place.folder, order.record["id"], len(wanted))
    except download.NotSaved as error:
        for image in wanted:
            order.images[image.index]["error"] = of_image(error.code, error.message)
        return []

    def fetching(image, part):
        if image.data:
            return lambda: download.unpack(image.data, part)
        return lambda: download.fetch(image.url, part, tools.loopback, tools.clock, deadline, tools.log,
                                      tools.api.where)

    stale = []
    works = [fetching(image, part) for image, part in zip(wanted, parts)]
    try:
        for position, saved, error in tools.clock.each(works, deadline - tools.clock.now() + 1.0, AT_ONCE):
            image = wanted[position]
            entry = order.images[image.index]
            if error is None:
                error = _publish(order, entry, saved, first_number + image.index)
            if error is None:
                continue
            if isinstance(error, Overdue):
                error = download.NotSaved("the time was up before the download ended")
            if not isinstance(error, Image2Error):
                raise error
            if getattr(error, "stale", False):
                stale.append(image)
            entry["error"] = of_image(error.code, error.message)
    finally:
        for part in parts:
            download.remove(part)
    return stale


def _publish(order, entry, saved, number):
    """Name a verified picture; the record says so first, so that a kill in between loses nothing."""
    place = order.place
    extension = places.extension_for(place, saved.format)
    while True:
        path = places.path_of(place, order.stem, number, extension)
        overwrite = _may_replace(order, path)
        entry.update(path=path, width=saved.width, height=saved.height, sha256=saved.sha256, error=None)
        order.note(images=order.images)
        try:
            if download.publish(saved.part, path, overwrite):
                break
        except OSError as error:
            entry.update(path=None)
            return download.NotSaved("the disk refused %s (%s)" % (path, error.strerror or error))
        number += 1
    _warn_of(order, entry, saved.format, extension)
    order.tools.tell.saved(path)
    return None


def _may_replace(order, path) -> bool:
    """Was this command told to overwrite, or the one that ordered, which did not mean what came there since?"""
    if not order.place.overwrite and not (_may_overwrite(order) and places.stood_at(path, order.record["sent_s"] or 0.0)):
        return False
    return order.tools.store.claim(path, order.record["id"])


def _may_overwrite(order) -> bool:
    return order.place.overwrite or order.record.get("overwrite") is True


def _warn_of(order, entry, format_name, extension):
    asked = (order.record.get("request") or {}).get("size")
    real = "%dx%d" % (entry["width"], entry["height"])
    if asked not in (None, "auto", real):
        order.warnings.append("Asked for %s, got %s." % (asked, real))
    if order.place.suffix and extension != order.place.suffix:
        order.warnings.append("The picture is %s, so it was saved as %s." % (format_name, extension))


def _numbers(order) -> int:
    taken = {image.get("path") for image in order.images}
    if any(taken - {None}):
        return 1  # going on beside pictures of this very order
    return places.first_number(order.place._replace(overwrite=_may_overwrite(order)), order.stem, len(order.images))


def _fresh(order, stale, deadline) -> list:
    try:
        task = order.tools.api.look(order.task_id, min(LOOK_S, max(1.0, deadline - order.tools.clock.now())))
    except Image2Error:
        return []
    fresh = [image for image in task.images if image.is_there and image.index in {old.index for old in stale}]
    for image in fresh:
        order.images[image.index]["url"] = image.url
    return fresh


def found(image) -> dict:
    """What a record and an answer say of an image that can be had but is not saved."""
    return {"index": image.index, "path": None, "url": image.url, "revised_prompt": image.revised_prompt,
            "error": None}


def _failed_image(image) -> dict:
    return {**found(image), "error": of_image("task_failed", NO_PICTURE, image.error or image.status)}


def _unsaved_image(image) -> dict:
    # no file was wanted, but to forget it would lose it
    return {**found(image), "error": of_image("not_saved", "it came inside the answer, without a URL")}


def _is_saved(image: dict) -> bool:
    path = image.get("path")
    return bool(path) and not image.get("error") and download.is_file_with(path, image.get("sha256"))
