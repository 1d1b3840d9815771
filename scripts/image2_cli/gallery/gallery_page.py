"""A gallery's entries -> the text of its page.

Pure but for reading its template: how the page looks and acts stands in `page.html` beside this room. The words
of records are hostile: every one that reaches the page goes through `_escaped` or `clean` and `html.escape`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import time
import unicodedata
from typing import NamedTuple, Optional
from urllib.parse import quote

from ..order.fields import MAX_PROMPT
from ..order.record import Record
from ..service.task import clean

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")
POLICY = ("default-src 'none'; img-src 'self' file:; style-src %s; script-src %s; base-uri 'none'; form-action 'none'; "
          "require-trusted-types-for 'script'; trusted-types 'none'")
MAX_ALT = 250  # a screen reader reads it to its end; the whole prompt stands beside the picture
JOINERS = "\u200c\u200d"  # emoji, Persian and Indic words fall apart without them

# What an entry is: its kind -> (the word for it, what that means).
PICTURE, MISSING, REPLACED, LEFT = "picture", "missing", "replaced", "not_downloaded"
FAILED, UNFINISHED, UNKNOWN, NOT_SENT = "failed", "unfinished", "unknown", "not_accepted"
KINDS = {
    PICTURE: ("completed", ""),
    MISSING: ("file missing", "The picture was saved, but its file is no longer in this folder."),
    REPLACED: ("replaced", "A later picture was saved under the same name."),
    LEFT: ("not downloaded", "The picture was made, but only its link was asked for."),
    FAILED: ("failed", "No picture came of it."),
    UNFINISHED: ("unfinished", "Accepted, but not here yet. `image2.py wait` fetches it and orders nothing."),
    UNKNOWN: ("unknown", "It was sent, and no answer came back."),
    NOT_SENT: ("not accepted", "The service did not take this order."),
}
CHARGED = {"yes": "charged", "no": "not charged", "maybe": "may have been charged"}

CARD = """\
<li class="card %(kind)s r%(ratio)d">
%(box)s
<div class="caption">
<p class="prompt" lang="" dir="auto">%(lines)s</p>
<p class="meta"><span class="size">%(size)s</span> <span class="status">%(word)s</span> %(copy)s</p>
</div>
<dl class="facts">%(facts)s</dl>
</li>"""


class Entry(NamedTuple):
    """One box of the page: a picture, or what of an order is not there. `file` is relative to the folder."""

    kind: str
    order: Record
    image: dict
    file: Optional[str] = None


def page(folder: str, entries: list) -> str:
    """The whole page. Its style and its script are allowed by their hashes, and nothing else is."""
    with open(TEMPLATE, encoding="utf-8") as file:  # text mode: a checkout with CRLF would have other hashes
        template = file.read()
    ratios = sorted({_ratio(entry) for entry in entries})
    template = template.replace("{{ratios}}", "\n".join(".r%d { --ratio: %.2f }" % (one, one / 100) for one in ratios))
    fields = {"policy": POLICY % (_hash_of("style", template), _hash_of("script", template)),
              "title": _escaped(os.path.basename(folder) or folder, 200), "summary": _summary(entries),
              "total": str(len(entries)), "made": _moment(time.time()),
              "cards": "\n".join(_card(entry) for entry in entries)}
    # in one pass, so that a prompt that spells a field is not filled in
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match.group(1)], template)


def _hash_of(tag: str, text: str) -> str:
    inside = re.search("<%s>(.*?)</%s>" % (tag, tag), text, re.S).group(1)
    return "'sha256-%s'" % base64.b64encode(hashlib.sha256(inside.encode("utf-8")).digest()).decode("ascii")


def _size(image):
    size = image.get("width"), image.get("height")
    return size if all(type(one) is int and 0 < one < 100_000 for one in size) else None


def _ratio(entry) -> int:
    """The shape of the entry's box in hundredths; very long pictures get a box that leaves room for a caption."""
    width, height = _size(entry.image) or (1, 1) if entry.file else (1, 1)
    return min(240, max(60, round(100 * width / height)))


def _charged(entry) -> str:
    if entry.order.get("service") == "sandbox":
        return "no"
    return {FAILED: "maybe", UNKNOWN: "maybe", NOT_SENT: "no"}.get(entry.kind, "yes")


def _meaning(entry) -> str:
    """What became of it: the recorded words about what went wrong, else what its kind means."""
    errors = [one for one in (entry.image.get("error"), entry.order.get("error")) if isinstance(one, dict)]
    if entry.kind not in (FAILED, UNFINISHED, UNKNOWN, NOT_SENT):
        errors = []
    words = [clean(error.get(name), 400) for error in errors[:1] for name in ("message", "server_message")]
    return " ".join(dict.fromkeys(filter(None, words))) or KINDS[entry.kind][1]


def _card(entry) -> str:
    prompt = _escaped(entry.order["request"].get("prompt"), MAX_PROMPT)
    size = "%d×%d" % _size(entry.image) if entry.file and _size(entry.image) else ""
    word = KINDS[entry.kind][0]
    if entry.kind == PICTURE:
        word = clean(entry.order.get("status"), 40) or word
    return CARD % {
        "kind": entry.kind, "ratio": _ratio(entry), "box": _picture(entry) if entry.file else _note(entry),
        "lines": prompt or '<span class="none">No prompt recorded</span>', "size": size, "word": html.escape(word),
        "copy": '<button type="button" class="copy">Copy<span class="unseen"> prompt</span></button>' if prompt else "",
        "facts": "".join("<dt>%s</dt><dd dir=\"auto\">%s</dd>" % pair for pair in _facts(entry, size, word) if pair[1])}


def _picture(entry) -> str:
    # "./" and the quoting of every other character: a name can be neither a scheme, a query nor a fragment
    url = "./" + quote(os.fsencode(entry.file.replace(os.sep, "/")))
    alt = _escaped(clean(entry.order["request"].get("prompt"), MAX_ALT), MAX_ALT) or "Picture without a recorded prompt"
    size = ' width="%d" height="%d"' % _size(entry.image) if _size(entry.image) else ""
    return ('<a class="box" href="%s"><img src="%s" alt="%s"%s loading="lazy" decoding="async"></a>'
            % (url, url, alt, size))


def _note(entry) -> str:
    return '<button type="button" class="box"><strong>%s</strong> <span>%s</span> <em>%s</em></button>' % (
        KINDS[entry.kind][0].capitalize(), html.escape(_meaning(entry)), CHARGED[_charged(entry)].capitalize())


def _facts(entry, size, word):
    order, image = entry.order, entry.image
    revised = clean(image.get("revised_prompt"), 1000)
    if revised == clean(order["request"].get("prompt"), 1000):
        revised = None
    saved_as = entry.file or (image.get("path") if entry.kind in (MISSING, REPLACED) else None)
    yield "Revised prompt", _escaped(revised, 1000)
    yield "Status", html.escape(". ".join(filter(None, [word, _meaning(entry)])))
    yield "Size", size or _escaped(order["request"].get("size"), 40).replace("x", "×")
    yield "Cost", CHARGED[_charged(entry)] + (" (sandbox)" if order.get("service") == "sandbox" else "")
    yield "Task", _escaped(order.get("task_id"), 128)
    yield "File", _escaped(saved_as if entry.file else os.path.basename(saved_as or ""), 300)
    yield "Ordered", _moment(order.get("created_s") or 0)


def _summary(entries) -> str:
    kinds = [entry.kind for entry in entries]
    pictures = kinds.count(PICTURE)
    parts = ["%d picture%s" % (pictures, "" if pictures == 1 else "s")]
    parts += ["%d %s" % (kinds.count(kind), KINDS[kind][0]) for kind in KINDS if kind != PICTURE and kind in kinds]
    return ", ".join(parts)


def _escaped(value, limit: int) -> str:
    """A record's text for the page, "" where it is none: nothing in it is markup, and what the eye cannot see is gone.

    Bidi overrides could show a prompt as another than is copied; invisible tags could carry words for an agent.
    """
    if not isinstance(value, str):
        return ""
    text = value[:limit] + ("…" if len(value) > limit else "")
    return html.escape("".join(char for char in text.replace("\r\n", "\n") if char in "\n\t" + JOINERS
                               or unicodedata.category(char) not in ("Cc", "Cf", "Cs"))).strip()


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if 0 < seconds < 4e9 else ""
