"""The one table of what an order may say, and the request that it comes to.

Pure: reads no file, no environment, no clock. Local reference files arrive here already as data: URIs.
From `FIELDS` derive the flags of `generate` and `batch`, the fields of a batch line and its defaults, the body of the
POST, the fingerprint, and the flags of a `next`: a new flag is a new row here (and a line in cli.md).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Callable, Mapping, NamedTuple, Optional

from ..text import shown

MODEL = "gpt-image-2"
MAX_PROMPT = 32_000  # characters; our own bound, the service's is not documented
MAX_DEPTH = 32  # of a value of --set: deeper ones end in a RecursionError wherever they are written
LONGEST_KEPT = 1_000  # characters of a further field in a record; a longer one, such as a mask, is named by its digest
MAX_DESCRIBED = 500_000  # characters of an order in its record: one too large to be read again would be paid again
BODY_FIELD = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
MAX_URL = 4_096
URL = r"(?i)https?://[^\s\x00-\x1f\x7f\ud800-\udfff/?#@\\]+(?:[/?#][^\s\x00-\x1f\x7f\ud800-\udfff\\]*)?"
# fields that other services have: the page says nothing of them, so they go by --set
FURTHER = ("quality", "seed", "background", "output-format", "style", "negative-prompt", "output-compression",
           "moderation", "user", "guidance-scale", "cfg-scale", "steps", "strength")
# what people call a size -> the size to type; nothing here says that the service supports it
SIZES = {"square": "1024x1024", "1k": "1024x1024", "2k": "2048x2048", "4k": "3840x2160", "landscape": "1536x1024",
         "horizontal": "1536x1024", "wide": "1536x864", "portrait": "1024x1536", "vertical": "1024x1536",
         "hd": "1280x720", "720p": "1280x720", "1080p": "1920x1080", "small": "512x512", "medium": "1024x1024",
         "large": "1536x1536"}


class Wrong(ValueError):
    """A value that no order can carry; its `args` are the mistakes, each without the field's name."""


class Field(NamedTuple):
    """One row. `check` turns a flag's text or a line's JSON value (None: not given) into what the body carries under this
    name (a dict: under the names in it), or raises `Wrong`. `guesses` are names that people try instead."""

    name: str
    help: str
    check: Callable[[Any], Any]
    short: Optional[str] = None
    metavar: Optional[str] = None
    repeatable: bool = False
    guesses: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return f"--{self.name}"


class ImageRequest(NamedTuple):
    """One order as the service is asked for it: the checked fields by their names in the body, none without a value."""

    fields: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        return str(self.fields["prompt"])

    @property
    def n(self) -> int:
        return int(self.fields["n"])

    @property
    def images(self) -> tuple[str, ...]:
        """URLs and data: URIs."""
        return tuple(self.fields.get("image", ()))

    @property
    def has_local_image(self) -> bool:
        return any(image.startswith("data:") for image in self.images)

    def payload(self, asynchronous: bool = True) -> dict[str, Any]:
        """The JSON body of the POST."""
        return {**self.fields, "async": True} if asynchronous else dict(self.fields)

    def described(self) -> dict[str, Any]:
        """The body for eyes and records: a reference file or a long further field is named by its digest."""
        return {name: _described(name, value) for name, value in self.payload().items()}

    def fingerprint(self, service: str, stem: str, occurrence: int = 1) -> str:
        """32 hex digits, the same for the same order to the same `service` under the same file's `stem`, whatever way it
        is sent. `occurrence` tells the second, third… of several that are meant to differ."""
        parts = [self.described(), service, stem, *([occurrence] if occurrence > 1 else [])]
        return _digest(json.dumps(parts, sort_keys=True))[:32]


def build(given: Mapping[str, Any], in_line: bool = False) -> tuple[Optional[ImageRequest], list[str]]:
    """Values by the table's names -> the request, or None and all its mistakes.

    `image` holds URLs and data: URIs. `in_line`: the mistakes name a batch line's field instead of the flag.
    """
    fields: dict[str, Any] = {}
    mistakes: list[str] = []
    for field in FIELDS:
        try:
            value = field.check(given.get(field.name))
        except Wrong as wrong:
            label = field.name if in_line else field.flag
            mistakes += [f"{'the prompt' if field.name == 'prompt' else label} {text}" for text in wrong.args]
            continue
        if isinstance(value, dict):
            fields.update(value)
        elif value is not None:
            fields[field.name] = value
    if mistakes:
        return None, mistakes
    request = ImageRequest(fields)
    if len(json.dumps(request.described())) > MAX_DESCRIBED:
        return None, ["the order has too many fields or reference URLs to be recorded"]
    return request, []


def merged(defaults: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """A line's values over the command's; of `set` each member stands for itself."""
    found = {**defaults, **line}
    if isinstance(line.get("set"), dict) and defaults.get("set"):
        found["set"] = {**_further(defaults["set"]), **line["set"]}
    return found


def words(given: Mapping[str, Any]) -> list[str]:
    """The texts of a command's flags as its words, for a command that orders the same."""
    found: list[str] = []
    for field in FIELDS:
        value = given.get(field.name) or []
        for text in value if isinstance(value, list) else [value]:
            found += [f"{field.flag}={text}"] if text.startswith(("-", "–", "—")) else [field.flag, text]
    return found


def url_mistake(text: str) -> Optional[str]:
    """Why this is no reference URL the service could fetch, or None."""
    if len(text) <= MAX_URL and re.fullmatch(URL, text):
        return None
    return f"{shown(text)} must be an http(s) URL without user name or blanks, or a local file"


def size_meant(value: Any) -> Optional[str]:
    """The size to type for what is none (16:9, landscape, 1k, 1024), or None."""
    text = str(value).strip().lower()
    number = r"([0-9]{1,5}(?:\.[0-9]{1,3})?)"
    found = re.fullmatch(rf"{number}(?:\s*(?:[^0-9.a-z]|x|to|by)\s*{number})?\s*(?:px)?", text)
    if not found:
        return SIZES.get(text)
    width, height = float(found[1]), float(found[2] or found[1])
    if min(width, height) >= 64:
        return f"{width:.0f}x{height:.0f}"
    if not found[2] or not height or not 0.1 <= width / height <= 10:
        return None
    scale = (1024 if width == height else 1536) / max(width, height)
    return "x".join(str(round(side * scale / 16) * 16) for side in (width, height))


def _prompt(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Wrong("is empty: say what the picture shows")
    if not isinstance(value, str):
        raise Wrong(f"must be text, not {shown(value)}")
    if len(value) > MAX_PROMPT:
        raise Wrong(f"has {len(value)} characters, {MAX_PROMPT} are allowed")
    if re.search("[\ud800-\udfff]", value):
        raise Wrong("is not valid UTF-8 text")
    return value


def _images(value: Any) -> Optional[list[str]]:
    images = [value] if isinstance(value, str) else value or []
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Wrong("must be a URL, a path, or a list of them")
    wrong = [mistake for image in images if not image.startswith("data:image/") and (mistake := url_mistake(image))]
    if wrong:
        raise Wrong(*wrong)
    return images or None


def _size(value: Any) -> Optional[str]:
    """`1536 × 1024` and `AUTO` are sizes beyond doubt."""
    if value is None:
        return None
    size = re.sub(r"\s*[xX×*]\s*", "x", value.strip()).lower() if isinstance(value, str) else ""
    if size == "auto" or re.fullmatch(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", size):
        return size
    raise Wrong(f"{shown(value)} must be WIDTHxHEIGHT or auto: type {size_meant(value) or 'one such as 1024x1024'}")


def _n(value: Any) -> int:
    if value is None:
        return 1
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value):
        value = int(value)
    if type(value) is int and 1 <= value <= 10:
        return value
    raise Wrong(f"{shown(value)} must be a whole number from 1 to 10")


def _model(value: Any) -> str:
    if value is None:
        return MODEL
    if isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]{1,100}", value):
        return value
    raise Wrong(f"{shown(value)} must be a model's name such as {MODEL}")


def _further(value: Any) -> dict[str, Any]:
    """A list of KEY=VALUE texts, or an object, as further body fields."""
    if not isinstance(value, (dict, list, type(None))):
        raise Wrong(f'{shown(value)} must be an object of body fields, such as {{"quality": "high"}}')
    pairs = list(value.items()) if isinstance(value, dict) else [_pair(str(text)) for text in value or ()]
    names = [name for name, _value in pairs]
    wrong = [mistake for name, one in pairs if (mistake := _further_mistake(name, one))]
    wrong += [f"{shown(name)} is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if wrong:
        raise Wrong(*wrong)
    return dict(pairs)


def _further_mistake(name: Any, value: Any) -> Optional[str]:
    own = {"async": "--sync", **{field.name: field.flag for field in FIELDS if field.name != "set"}}
    if not isinstance(name, str) or not re.fullmatch(BODY_FIELD, name):
        return f"{shown(str(name).rstrip('='))} must be KEY=VALUE with a plain name, such as quality=high"
    if name in own:
        return f"{name}: use {own[name]} for this field"
    unsendable = _unsendable(value)
    return f"{shown(name)} {unsendable}" if unsendable else None


def _unsendable(value: Any, depth: int = 0) -> Optional[str]:
    """Why no JSON that others read could carry this value, or None."""
    if depth > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH}"
    if isinstance(value, float) and not math.isfinite(value):
        return "holds a number that is not finite"
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        return "is not valid UTF-8 text"
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, (_unsendable(item, depth + 1) for item in inner)), None)


def _pair(text: str) -> tuple[str, Any]:
    """KEY=VALUE -> the key, and the value as JSON or else text. Of what is no pair all is key, with its `=`."""
    key, equals, value = text.partition("=")
    return (key, _json_or_text(value)) if equals else (f"{text}=", None)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _described(name: str, value: Any) -> Any:
    if name == "image":
        return [f"{image[5:].partition(';')[0]} sha256:{_digest(image)}" if image.startswith("data:") else image
                for image in value]
    text = "" if name == "prompt" else json.dumps(value, sort_keys=True)
    return value if len(text) <= LONGEST_KEPT else f"sha256:{_digest(text)}"


def _digest(text: str) -> str:
    import hashlib  # costs the start of every verb that orders nothing

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


FIELDS: tuple[Field, ...] = (
    Field("prompt", "what the picture shows (- is stdin)", _prompt, "-p", "TEXT",
          guesses=("text", "description", "caption", "message", "prompt-text", "query")),
    Field("image", "reference image; repeatable", _images, "-i", "URL_OR_PATH", repeatable=True,
          guesses=("images", "reference", "ref", "input-image", "reference-image", "image-url", "source", "init-image",
                   "image-file", "image-path", "input")),
    Field("size", "such as 1024x1024, or auto", _size, None, "WxH",
          guesses=("aspect-ratio", "aspect", "ratio", "ar", "resolution", "dimensions", "image-size", "orientation")),
    Field("n", "how many images (default 1)", _n, "-n", "1..10",
          guesses=("count", "num", "number", "num-images", "num-outputs", "samples", "batch-size", "variations")),
    Field("model", f"default {MODEL}", _model, None, "NAME", guesses=("model-name", "model-id", "engine")),
    Field("set", "another body field; value as JSON or text", _further, None, "KEY=VALUE", repeatable=True,
          guesses=("param", "extra", "option", "extra-body")),
)
