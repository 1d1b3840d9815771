"""Flags or a batch line -> `ImageRequest` -> the body of the POST.

Pure: reads no file, no environment, no clock. Local reference files arrive here already as data: URIs.
Every mistake is collected, so that one answer names them all and nothing is spent to find the next.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections import namedtuple

MODEL = "gpt-image-2"
MAX_PROMPT = 32000  # characters; our own bound, the service's is not documented
LONGEST_TOLD = 1000  # characters of a further field in a record; a longer one, such as a mask, is named by its digest
MAX_DESCRIBED = 500_000  # characters of an order in its record: one too large to be read again would be paid again
OWN_FIELDS = {"prompt": "the prompt", "size": "--size", "n": "--n", "model": "--model", "image": "--image",
              "async": "--sync"}
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
MAX_DEPTH = 32  # of a value of --set: deeper ones end in a RecursionError wherever they are written
URL = re.compile(r"https?://[^\s\x00-\x1f\x7f\ud800-\udfff/?#@\\]+(?:[/?#][^\s\x00-\x1f\x7f\ud800-\udfff\\]*)?", re.I)


class ImageRequest(namedtuple("ImageRequest", "prompt size n model images extra")):
    """One order as the service is asked for it. `images` are URLs or data: URIs; `extra` further body fields.

    `size` is None where the service is to choose.
    """

    __slots__ = ()

    def payload(self, asynchronous: bool = True) -> dict:
        """The JSON body of the POST."""
        body = {"model": self.model, "prompt": self.prompt, "n": self.n, **self.extra}
        if self.size:
            body["size"] = self.size
        if self.images:
            body["image"] = list(self.images)
        if asynchronous:
            body["async"] = True
        return body

    def described(self) -> dict:
        """The body for eyes and records: a reference file or a long field is named by its digest, never carried."""
        body = self.payload()
        body.update((name, _told(value)) for name, value in self.extra.items())
        if self.images:
            body["image"] = [_named(image) for image in self.images]
        return body

    def fingerprint(self, *place: str) -> str:
        """The same for the same order to the same `place`, whatever way it is sent."""
        import hashlib

        text = json.dumps([self.described(), *place], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def build(fields: dict) -> tuple:
    """Fields named like the flags (texts, or JSON values from a batch line) -> the request and its mistakes.

    `image` is a list of URLs and data: URIs, `set` a list of KEY=VALUE texts or an object. With any mistake
    the request is None.
    """
    mistakes = []
    prompt = _prompt(fields.get("prompt"), mistakes)
    size = _size(fields.get("size"), mistakes)
    n = _n(fields.get("n"), mistakes)
    model = MODEL if fields.get("model") is None else fields["model"]
    if not isinstance(model, str) or not re.fullmatch(r"[\x21-\x7e]{1,100}", model):
        mistakes.append("--model must be a model's name such as %s" % MODEL)
    extra = _extra(fields.get("set"), mistakes)
    if mistakes:
        return None, mistakes
    asked = ImageRequest(prompt, size, n, model, tuple(fields.get("image") or ()), extra)
    if len(json.dumps(asked.described())) > MAX_DESCRIBED:
        return None, ["the order has too many fields or reference URLs to be recorded"]
    return asked, []


def url_mistake(text: str) -> str | None:
    """Why this is no reference URL the service could fetch, or None."""
    if len(text) > 4096 or not URL.fullmatch(text):
        return "%s must be an http(s) URL without user name or blanks, or a local file" % shown(text)
    return None


def shown(text, limit: int = 60) -> str:
    """A user's own text in a message: quoted, escaped, short."""
    text = text if isinstance(text, str) else reprlib.repr(text)
    quoted = json.dumps(text[: limit + 1], ensure_ascii=False)
    return quoted if len(text) <= limit else quoted[:limit] + '…"'


def _prompt(prompt, mistakes):
    if not isinstance(prompt, str) or not prompt.strip():
        mistakes.append("the prompt is empty: say what the picture shows")
    elif len(prompt) > MAX_PROMPT:
        mistakes.append("the prompt has %d characters, %d are allowed" % (len(prompt), MAX_PROMPT))
    elif any("\ud800" <= char <= "\udfff" for char in prompt):
        mistakes.append("the prompt is not valid UTF-8 text")
    return prompt


def _size(size, mistakes):
    if size is None or size == "auto":
        return size
    if isinstance(size, str) and re.fullmatch(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", size):
        return size
    mistakes.append("--size %s must be WIDTHxHEIGHT such as 1024x1024, or auto" % shown(size))
    return None


def _n(n, mistakes):
    if n is None:
        return 1
    if isinstance(n, str) and re.fullmatch(r"[0-9]{1,3}", n):
        n = int(n)
    if type(n) is int and 1 <= n <= 10:
        return n
    mistakes.append("--n %s must be a whole number from 1 to 10" % shown(n))
    return None


def _extra(given, mistakes):
    if not isinstance(given, (dict, list, type(None))):
        mistakes.append("--set %s must be an object of body fields" % shown(given))
        return {}
    pairs = given.items() if isinstance(given, dict) else [pair(text, mistakes) for text in given or ()]
    extra = {}
    for key, value in filter(None, pairs):
        wrong = _unsendable(value)
        if key in OWN_FIELDS:
            mistakes.append("--set %s: use %s for this field" % (key, OWN_FIELDS[key]))
        elif not FIELD.fullmatch(key):
            mistakes.append("--set %s is no name of a body field" % shown(key))
        elif key in extra:
            mistakes.append("--set %s is given twice" % shown(key))
        elif wrong:
            mistakes.append("--set %s %s" % (shown(key), wrong))
        else:
            extra[key] = value
    return extra


def _unsendable(value, depth: int = 0) -> str | None:
    """Why no JSON that others read could carry this value, or None."""
    if depth > MAX_DEPTH:
        return "is nested deeper than %d" % MAX_DEPTH
    if isinstance(value, float) and not math.isfinite(value):
        return "holds a number that is not finite"
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        return "is not valid UTF-8 text"
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, (_unsendable(item, depth + 1) for item in inner)), None)


def pair(text, mistakes):
    """KEY=VALUE -> (key, value as JSON or text), or None and a mistake."""
    key, equals, value = str(text).partition("=")
    if not equals or not FIELD.fullmatch(key):
        mistakes.append("--set %s must be KEY=VALUE, as in --set quality=high" % shown(text))
        return None
    try:
        return key, json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return key, value


def _refuse_constant(name: str):
    raise ValueError(name)


def _told(value):
    text = json.dumps(value, sort_keys=True)
    if len(text) <= LONGEST_TOLD:
        return value
    import hashlib

    return "sha256:%s" % hashlib.sha256(text.encode("ascii")).hexdigest()


def _named(image: str) -> str:
    if not image.startswith("data:"):
        return image
    import hashlib

    kind = image[5:].partition(";")[0]
    return "%s sha256:%s" % (kind, hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest())
