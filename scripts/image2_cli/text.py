"""What may be shown: texts cleaned, cut, quoted, without the key. A leaf: texts in, texts out.

Text of the service, of a record or of a file is data. It is made harmless before anything else sees it.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any, Callable, Optional, Sequence

INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn")
# of no width, but letters or marks by their category: joiners, fillers, variation selectors
ZERO_WIDTH = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
SEEN = 100_000  # characters of one text that anything here ever looks at
WITHHELD = "(withheld)"


def clean(text: Any, limit: int = 200) -> Optional[str]:
    """A stranger's text made harmless: one line, no control, bidi or zero-width characters, cut to `limit`.

    None where there is no text. Only ever data: it goes into `server_message`, `revised_prompt`, `status`.
    """
    if not isinstance(text, str):
        return None
    line = " ".join(harmless(text[: limit * 4]).split())
    return (line[: limit - 1] + "…" if len(line) > limit else line) or None


def harmless(text: str) -> str:
    """The text without what the eye does not see: control, bidi, zero-width and unassigned characters."""
    if text.isascii() and text.isprintable():
        return text
    import unicodedata  # what `--help` does not need is loaded where it is used

    return "".join(" " if char.isspace() else char for char in ZERO_WIDTH.sub("", text)
                   if char.isspace() or unicodedata.category(char) not in INVISIBLE)


def shown(text: Any, limit: int = 60) -> str:
    """A user's own text in a message: quoted, escaped, short."""
    import json

    text = text if isinstance(text, str) else repr(text)[: limit + 1]
    quoted = json.dumps(text[: limit + 1], ensure_ascii=False)
    return quoted if len(text) <= limit else quoted[:limit] + '…"'


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it, names of members too, replaced by `change(text)`.

    Raises RecursionError for a value that is nested too deep to look through.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [changed(item, change) for item in value]
    if isinstance(value, dict):
        return {change(name): changed(item, change) for name, item in value.items()}
    return value


def without(value: Any, secret: str) -> Any:
    """A JSON value with every text withheld that holds `secret`, also split by invisible characters or percent-encoded.

    Raises RecursionError like `changed`.
    """
    def withheld(text: str) -> str:
        # `clean` keeps the beginning of a long text and would put a split key together again
        seen = secret in text or encoded(secret).search(harmless(text[:SEEN]))
        return "(withheld: it held the key)" if seen else text

    return changed(value, withheld)


def masked(text: str, secrets: Sequence[str]) -> str:
    """The text with every secret replaced, as it is and percent-encoded."""
    for secret in secrets:
        text = encoded(secret).sub(WITHHELD, text)
    return text


@functools.lru_cache(maxsize=8)
def encoded(secret: str) -> re.Pattern[str]:
    """The pattern of `secret` as a link holds it: each character as it is or percent-encoded."""
    return re.compile("".join(f"(?:{re.escape(char)}|(?i:%{ord(char):02x}))" for char in secret))


def shell(words: Sequence[str], os_name: str = os.name) -> str:
    """A command that runs as it stands in this machine's shell: on Windows that is Git Bash, PowerShell or cmd.

    Git Bash comes first there, for agents use it: it eats a bare backslash and takes a bare `&` for the command's end.
    """
    import shlex

    return " ".join(map(_windows_word if os_name == "nt" else shlex.quote, words))


def _windows_word(word: str) -> str:
    if re.match(r"[A-Za-z]:\\|\\\\\w", word):  # a path: every program there takes forward slashes
        word = word.replace("\\", "/")
    if re.fullmatch(r"(?!@)[\w./:+=@-]+", word):
        return word
    if re.search(r"[$`]|\\[\\\n]", word):  # cmd would take single quotes for letters, Git Bash and PowerShell do not
        return f"'{word}'" if "'" not in word else '"' + re.sub(r'([$`"\\])', r"\\\1", word) + '"'
    return '"' + re.sub(r'(\\?)("|$)', lambda end: end[1] * 2 + (r'\"' if end[2] else ""), word) + '"'
