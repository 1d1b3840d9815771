"""A folder's records -> one self-contained page beside its pictures.

Reads `.image2/` and looks which files are there; writes that page and nothing else, and knows neither network, key nor
lock. The words of records are hostile: all that reach the page go through `_escaped`. How it looks stands in `page.html`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import stat
import time
from collections import Counter
from typing import Any
from urllib.parse import quote

from ..errors import Image2Error
from ..order.output import SUFFIXES, free_name
from ..order.record import Record, SavedImage, charged, moment
from ..order.store import Store, write_file
from ..text import harmless, shown

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")
BEGINNING = b"<!doctype html><!-- image2 gallery -->"  # of every page of ours; one that begins otherwise is left alone
MAX_PROMPT, MAX_ALT = 32_000, 250  # characters; a screen reader reads an alt to its end
COMMON = {"prompt", "size", "n", "model", "image", "async"}  # fields that say nothing more beside their picture

KINDS = {  # what became of it -> the word for it, and what that means
    "picture": ("completed", ""),
    "missing": ("file missing", "Its file is no longer here."),
    "replaced": ("replaced", "A later picture has its name."),
    "damaged": ("damaged", "No whole picture; kept as it came."),
    "linked": ("not downloaded", "Only its link was asked for."),
    "failed": ("failed", "No picture came of it."),
    "unfinished": ("unfinished", "Fetch it for nothing: image2.py wait"),
    "unknown": ("unknown", "It was sent; no answer came back."),
    "not_accepted": ("not accepted", "The service did not take it."),
}
KIND_OF = {  # an order's state or an image's error -> the kind, where it has another name
    "not_sent": "not_accepted", "sending": "unknown", "accepted": "unfinished", "not_saved": "unfinished",
    "saved": "failed", "partial": "failed", "task_failed": "failed"}
CHARGED = {"yes": "charged", "no": "not charged", "maybe": "may have been charged"}

CARD = """\
<li class="card {kind}">
{picture}
<div class="caption">
<p class="prompt" lang="" dir="auto">{prompt}</p>
<p class="meta"><span class="size">{size}</span> <span class="status">{status}</span> {copy}</p>
</div>
<dl class="facts">{facts}</dl>
</li>"""
PICTURE = """\
<a class="box" href="{url}"><img src="{url}" alt="{alt}"{shape} loading="lazy" decoding="async"></a>
<button type="button" class="choose" aria-pressed="false" aria-label="Choose" value="{name}"></button>"""


def write_page(folder: str) -> tuple[str, dict[str, int]]:
    """Write the page of `folder`: (its path, how many `images` it shows, how many `failed`, and every other kind found).

    Raises `Image2Error`: usage where there are no records; output_not_writable where the disk refuses.
    """
    folder = os.path.abspath(folder)
    records = sorted(Store(folder).all(), key=lambda each: each.created_s)
    if not records:
        what = "holds no records of orders" if os.path.isdir(folder) else "does not exist"
        raise Image2Error("usage", f"{shown(folder, 200)} {what}. Name the folder that `generate --out` wrote to.")
    entries = _entries_of(folder, records)
    counts = Counter(kind for kind, _, _ in entries)
    try:
        path = free_name(folder, "index", ".html", BEGINNING)
        write_file(path, _page(os.path.basename(folder) or folder, [_card(*entry) for entry in entries], counts))
    except OSError as error:
        raise Image2Error("output_not_writable", f"The gallery cannot be written to {shown(folder, 200)} "
                                                 f"({error.strerror or error}).") from None
    return path, {"images": counts.pop("picture", 0), "failed": counts.pop("failed", 0), **counts}


def _entries_of(folder: str, records: list[Record]) -> list[tuple[str, Record, SavedImage]]:
    """The cards of the page. What is not there is told once an order; a file belongs to the latest that claims it."""
    latest = {image.file: image for order in records for image in order.images}
    entries = []
    for order in _in_order(records):
        images = list(order.images)
        if len(images) < max(order.wanted, 1):
            images.append(SavedImage(len(images)))  # for all that did not come
        seen = set()
        for image in images:
            kind = _kind(folder, order, image)
            if kind == "picture" and latest[image.file] is not image:
                kind = "replaced"
            if image.file or kind not in seen:
                entries.append((kind, order, image))
                seen.add(kind)
    return entries


def _in_order(records: list[Record]) -> list[Record]:
    """The newest first, but the lines of a batch in their own order, where its newest would stand.

    A record knows its line, not its batch: a line that comes again begins another one.
    """
    groups: list[dict[int, Record]] = []
    batch: dict[int, Record] = {}
    for order in records:
        if order.batch_line is None:
            groups.append({0: order})
            continue
        if not batch or order.batch_line in batch:
            batch = {}
            groups.append(batch)
        batch[order.batch_line] = order
    groups.sort(key=lambda group: max(order.created_s for order in group.values()), reverse=True)
    return [group[line] for group in groups for line in sorted(group)]


def _kind(folder: str, order: Record, image: SavedImage) -> str:
    if image.error or not image.file:
        end = image.error.code if image.error else order.state
        return KIND_OF.get(end, end)
    if _is_picture(folder, image.file):
        return "picture"
    return "missing" if order.is_settled else "unfinished"


def _is_picture(folder: str, name: str) -> bool:
    """Is it a regular file of the folder itself, by the name of a picture? Never a link, whatever a record names."""
    try:
        return (os.path.basename(name) == name and os.path.splitext(name)[1].lower() in SUFFIXES
                and stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode))
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return False


def _page(title: str, cards: list[str], counts: dict[str, int]) -> str:
    """The whole page. Its style and its script are allowed by their hashes, and nothing else is."""
    with open(TEMPLATE, encoding="utf-8") as file:  # text mode: a checkout with CRLF would have other hashes
        template = file.read()
    fields = {
        "style": _hash_of("style", template), "script": _hash_of("script", template),
        "title": _escaped(title, 200), "made": moment(time.time()),
        "summary": " · ".join(f"{counts[kind]} {_label(word)}" for kind, (word, _) in KINDS.items() if kind in counts),
        "cards": "\n".join(cards),
    }
    # in one pass, so that a prompt that spells a field is not filled in
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match.group(1)], template)


def _hash_of(tag: str, text: str) -> str:
    inside = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode('utf-8')).digest()).decode('ascii')}'"


def _card(kind: str, order: Record, image: SavedImage) -> str:
    word, meaning = KINDS[kind]
    name, is_sandbox = _escaped(image.file, 300), order.service == "sandbox"
    prompt = _escaped(order.request.get("prompt"), MAX_PROMPT)
    size = f"{image.width}×{image.height}" if image.width and image.height else ""
    further = _further_fields(order)
    picture = reason = ""
    if kind == "picture":
        picture = PICTURE.format(
            url="./" + quote(os.fsencode(image.file or ""), safe=""),  # can be neither a scheme, a query nor a fragment
            shape=f' width="{image.width}" height="{image.height}"' if size else "", name=name,
            alt=_escaped(order.prompt, MAX_ALT) or "Picture without a recorded prompt")
    else:
        reason = _escaped((image.error and image.error.server_message) or order.server_message, 400)
    facts = {
        "Revised prompt": _escaped(image.revised_prompt if image.revised_prompt != order.prompt else None, 1000),
        "Status": f"{_label(word)} {_label(meaning)} {reason}",
        "Size": size or _escaped(order.request.get("size"), 40).replace("x", "×"),
        "Further fields": further,
        "Cost": _label(CHARGED[charged(order, is_sandbox)]) + (" (sandbox)" if is_sandbox else ""),
        "Task": _escaped(order.task_id, 256),
        "File": name,
        "Ordered": moment(order.created_s),
    }
    return CARD.format(
        kind=kind, picture=picture, prompt=prompt or _label("No prompt recorded"),
        status="" if kind == "picture" else _label(word),  # that it came, everybody sees
        size=" · ".join(filter(None, [size, further])),
        copy='<button type="button" class="copy t">Copy prompt</button>' if prompt else "",
        facts="".join(f'<dt>{label}</dt><dd dir="auto">{value}</dd>' for label, value in facts.items() if value))


def _further_fields(order: Record) -> str:
    """Such as `quality high · seed 7`. Of a list or an object the name alone: a stranger's may be too deep to write."""
    words = []
    for name, value in order.request.items():
        if name in COMMON:
            continue
        if isinstance(value, (list, dict)):
            words.append(name)
        else:
            words.append(f"{name} {value if isinstance(value, str) else json.dumps(value)}")
    return _escaped(" · ".join(words), 300)


def _label(words: str) -> str:
    """Words of ours, for which the page knows the Chinese."""
    return f'<span class="t">{words}</span>' if words else ""


def _escaped(value: Any, limit: int) -> str:
    """A record's text for the page, "" where it is none: nothing in it is markup, and what the eye cannot see is gone."""
    if not isinstance(value, str):
        return ""
    text = value[:limit] + ("…" if len(value) > limit else "")
    return html.escape("\n".join(map(harmless, text.split("\n")))).strip()
