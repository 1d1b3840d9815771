"""A folder's records -> one self-contained page beside its pictures.

Reads `.image2/` and looks which files are there; writes that page and nothing else, and knows neither network, key nor
lock. The words of records are hostile: all that reach the page go through `_escaped`. How it looks stands in `page.html`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import stat
import time
from collections import Counter
from typing import Any, NamedTuple
from urllib.parse import quote

from ..errors import Image2Error
from ..order.output import SUFFIXES, free_name
from ..order.record import Record, SavedImage, charged
from ..order.store import Store, write_file
from ..text import harmless, shown

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")
BEGINNING = b"<!doctype html><!-- image2 gallery -->"  # of every page of ours; one that begins otherwise is left alone
POLICY = ("default-src 'none'; img-src 'self' file:; style-src {style}; script-src {script}; base-uri 'none'; "
          "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
MAX_PROMPT, MAX_ALT = 32_000, 250  # characters; a screen reader reads an alt to its end
FILLERS = 24  # as many boxes as the widest row has: they fill the last one, so that its pictures do not grow

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
OF_STATE = {"not_sent": "not_accepted", "sending": "unknown", "unknown": "unknown", "accepted": "unfinished",
            "linked": "linked"}
OF_ERROR = {"not_saved": "unfinished", "damaged": "damaged"}
CHARGED = {"yes": "charged", "no": "not charged", "maybe": "may have been charged"}

CARD = """\
<li class="card {kind} r{ratio}">
{box}
<div class="caption">
<p class="prompt" lang="" dir="auto">{prompt}</p>
<p class="meta"><span class="size">{size}</span> <span class="status">{status}</span> {copy}</p>
</div>
<dl class="facts">{facts}</dl>
</li>"""
PICTURE = """\
<a class="box" href="{url}"><img src="{url}" alt="{alt}"{shape} loading="lazy" decoding="async"></a>
<button type="button" class="choose" aria-pressed="false" aria-label="Choose" value="{name}"></button>"""
NOTE = """\
<div class="box note"><strong class="t">{word}</strong> {meaning} <span dir="auto">{reason}</span> \
<em>{cost}</em> <code>{task}</code></div>"""


class Entry(NamedTuple):
    """One box of the page: a picture, or what of an order is not there."""

    kind: str
    order: Record
    image: SavedImage


def write_page(folder: str) -> tuple[str, dict[str, int]]:
    """Write the page of `folder`: (its path, how many `images` it shows, how many `failed`, and every other kind found).

    Raises `Image2Error`: usage where there are no records; output_not_writable where the disk refuses.
    """
    folder = os.path.abspath(folder)
    records = Store(folder).all()
    if not records:
        what = "holds no records of orders" if os.path.isdir(folder) else "does not exist"
        raise Image2Error("usage", f"{shown(folder, 200)} {what}. Name the folder that `generate --out` wrote to.")
    entries = _entries_of(folder, _in_order(records))
    try:
        path = free_name(folder, "index", ".html", BEGINNING)
        write_file(path, _page(folder, entries))
    except OSError as error:
        raise Image2Error("output_not_writable", f"The gallery cannot be written to {shown(folder, 200)} "
                                                 f"({error.strerror or error}).") from None
    counts = Counter(entry.kind for entry in entries)
    return path, {"images": counts.pop("picture", 0), "failed": counts.pop("failed", 0), **counts}


def _in_order(records: list[Record]) -> list[Record]:
    """The newest first, but the lines of a batch in their own order, where its newest would stand.

    A record knows its line, not its batch: a line that comes again begins another one.
    """
    groups: list[dict[int, Record]] = []
    batch: dict[int, Record] = {}
    for order in sorted(records, key=lambda each: each.created_s):
        if order.batch_line is None:
            groups.append({0: order})
            continue
        if not batch or order.batch_line in batch:
            batch = {}
            groups.append(batch)
        batch[order.batch_line] = order
    groups.sort(key=lambda group: max(order.created_s for order in group.values()), reverse=True)
    return [group[line] for group in groups for line in sorted(group)]


def _entries_of(folder: str, orders: list[Record]) -> list[Entry]:
    """The entries of the page. What is not there is told once an order; a file belongs to the latest that claims it."""
    latest = {image.file: image for order in sorted(orders, key=lambda each: each.created_s) for image in order.images}
    entries = []
    for order in orders:
        seen = set()
        lacks = not order.images or len(order.images) < order.wanted
        for image in [*order.images, *[SavedImage(len(order.images))] * lacks]:
            kind = _kind(folder, order, image)
            if kind == "picture" and latest[image.file] is not image:
                kind = "replaced"
            if image.file or kind not in seen:
                entries.append(Entry(kind, order, image))
                seen.add(kind)
    return entries


def _kind(folder: str, order: Record, image: SavedImage) -> str:
    if image.error:
        return OF_ERROR.get(image.error.code, "failed")
    if not image.file:
        return OF_STATE.get(order.state, "failed")
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


def _page(folder: str, entries: list[Entry]) -> str:
    """The whole page. Its style and its script are allowed by their hashes, and nothing else is."""
    with open(TEMPLATE, encoding="utf-8") as file:  # text mode: a checkout with CRLF would have other hashes
        template = file.read()
    ratios = sorted({_ratio(entry) for entry in entries})
    template = template.replace("{{ratios}}", "\n".join(f".r{one} {{ --ratio: {one / 100:.2f} }}" for one in ratios))
    cards = [_card(entry) for entry in entries] + [f'<li class="r{_ratio(entries[-1])}" aria-hidden="true"></li>'] * FILLERS
    counts = Counter(entry.kind for entry in entries)
    summary = " · ".join(f"{counts[kind]} {_label(word)}" for kind, (word, _) in KINDS.items() if kind in counts)
    fields = {"policy": POLICY.format(style=_hash_of("style", template), script=_hash_of("script", template)),
              "title": _escaped(os.path.basename(folder) or folder, 200), "summary": summary,
              "made": _moment(time.time()), "cards": "\n".join(cards)}
    # in one pass, so that a prompt that spells a field is not filled in
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match.group(1)], template)


def _hash_of(tag: str, text: str) -> str:
    inside = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode('utf-8')).digest()).decode('ascii')}'"


def _ratio(entry: Entry) -> int:
    """The shape of the entry's box in hundredths; very long pictures get a box that has space for a caption."""
    width, height = (entry.image.width, entry.image.height) if entry.kind == "picture" else (1, 1)
    return min(240, max(60, round(100 * width / height))) if width and height else 100


def _card(entry: Entry) -> str:
    kind, order, image = entry
    word, meaning = KINDS[kind]
    prompt = _escaped(order.request.get("prompt"), MAX_PROMPT)
    size = f"{image.width}×{image.height}" if image.width and image.height else ""
    cost = CHARGED[charged(order, is_sandbox=order.service == "sandbox")]
    words = image.error and image.error.server_message or order.server_message
    reason = _escaped(words, 400) if kind != "picture" else ""
    facts = {
        "Revised prompt": _escaped(image.revised_prompt if image.revised_prompt != order.prompt else None, 1000),
        "Status": f"{_label(word)} {_label(meaning)} {reason}",
        "Size": size or _escaped(order.request.get("size"), 40).replace("x", "×"),
        "Cost": _label(cost) + (" (sandbox)" if order.service == "sandbox" else ""),
        "Task": _escaped(order.task_id, 256),
        "File": _escaped(image.file, 300),
        "Ordered": _moment(order.created_s),
    }
    note = NOTE.format(word=word, meaning=_label(meaning), reason=reason, cost=_label(cost), task=facts["Task"])
    return CARD.format(
        kind=kind, ratio=_ratio(entry), box=_picture(entry) if kind == "picture" else note,
        prompt=prompt or _label("No prompt recorded"), size=size, status=_label(word),
        copy='<button type="button" class="copy t">Copy prompt</button>' if prompt else "",
        facts="".join(f'<dt>{name}</dt><dd dir="auto">{value}</dd>' for name, value in facts.items() if value))


def _picture(entry: Entry) -> str:
    name, width, height = entry.image.file or "", entry.image.width, entry.image.height
    return PICTURE.format(
        url="./" + quote(os.fsencode(name), safe=""),  # so a name can be neither a scheme, a query nor a fragment
        alt=_escaped(entry.order.prompt, MAX_ALT) or "Picture without a recorded prompt",
        shape=f' width="{width}" height="{height}"' if width and height else "", name=_escaped(name, 300))


def _label(words: str) -> str:
    """Words of ours, for which the page knows the Chinese."""
    return f'<span class="t">{words}</span>' if words else ""


def _escaped(value: Any, limit: int) -> str:
    """A record's text for the page, "" where it is none: nothing in it is markup, and what the eye cannot see is gone."""
    if not isinstance(value, str):
        return ""
    text = value[:limit] + ("…" if len(value) > limit else "")
    return html.escape("\n".join(map(harmless, text.split("\n")))).strip()


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if 0 < seconds < 4e9 else ""
