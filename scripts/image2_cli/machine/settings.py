"""The key and the base URL: the only reader of these two variables, and of `.env` in the working folder.

Of that file it takes `IMAGE2_API_KEY` alone. A project's file that could set `IMAGE2_BASE_URL` would send the user's key
wherever it likes (CVE-2026-21852 in another agent's tool), and `load_dotenv` would take proxies, CA bundles and LD_PRELOAD
out of any project. May not touch the network; no text of an error holds any part of the key.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Mapping, NamedTuple, Optional

from ..errors import HostSandbox, Image2Error

KEY_NAME, BASE_NAME = "IMAGE2_API_KEY", "IMAGE2_BASE_URL"
SITE = "https://image2.vip"
ENVIRONMENT, DOTENV = "the environment", ".env in the working folder"
MAX_DOTENV = 64 * 1024
# A host's sandbox shows itself by one of these variables.
_CODEX = HostSandbox("Codex", "network_access = true below [sandbox_workspace_write] in its config.toml")
SANDBOX_SIGNS = {
    "CODEX_SANDBOX_NETWORK_DISABLED": _CODEX,
    "CODEX_SANDBOX": _CODEX,
    "SANDBOX_RUNTIME": HostSandbox("Claude Code", "the host in sandbox.network.allowedDomains of its settings"),
    "CURSOR_SANDBOX": HostSandbox("Cursor", "the host in networkPolicy.allow of .cursor/sandbox.json"),
}
# (scheme, host and port; the port; the path). Plain http is for this machine only, in spellings nobody can mistake.
BASE = (r"((?i:https://(?:[a-z0-9.-]+|\[[0-9a-f:]*:[0-9a-f:]*\])"
        r"|http://(?:localhost|\[::1\]|127(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}))(?::(\d{1,5}))?)(/[!-~]*)?")
# A line of `.env` that sets the key, or tries to: (what stands before the name, `=` if it follows it, the rest).
LINE = rf"""[ \t]*((?:[^\s=#]+[ \t]+)*(?:(?i:\$env:))?)['"]?{KEY_NAME}\b['"]?[ \t]*(=?)(.*)"""
UNCLOSED = r"""[ \t]*(?:'(?:\\'|[^'])*|"(?:\\.|[^"\\])*)$"""
KEY_MISTAKES = (
    (r"""['"“”‘’`]|.*[“”‘’`]$""", "has quotes around it: set it without them"),
    (rf"(export\s+)?{KEY_NAME}\s*[=:]", "has its own name in front: set what follows the `=` alone"),
    (r"(?i)(authorization\s*:\s*)?bearer[\s:]", "has `Bearer` in front: set what follows it alone"),
    (r"(?s).*\$[{(]|\$\w+$|%\w+%$", "is the name of a variable that nothing replaced: set the key itself"),
    (r"(?i)your[_-]?(image2)?[_-]?api[_-]?key|<.*>|(sk-)?\.{3}", "is the example of a manual, not a key"),
    (r"(?![\x21-\x7e]{8,512}\Z)", "is malformed: a key has 8 to 512 visible ASCII characters, no blanks inside"),
)


class Key(str):
    """The API key; prints as stars wherever it is shown by accident."""

    def __repr__(self) -> str:
        return "Key(***)"


class Settings(NamedTuple):
    """Whom to ask and with what; `key_source` says where the key came from."""

    base_url: str
    key: Key
    key_source: str


def for_sandbox(base_url: str, key: str) -> Settings:
    """Settings for the stand-in of this run, with its own key; the user's stays out of it."""
    return Settings(base_url, Key(key), "sandbox")


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Both settings. Raises `Image2Error` missing_key or malformed_key, and ImportError where python-dotenv is needed."""
    base = base_url(environment)
    key, source = _find_key(environment)
    if not key:
        raise Image2Error("missing_key", f"{KEY_NAME} is not set. Ask the user to create a key at {SITE} and to set the "
                          f"variable where the agent starts, or in {DOTENV} (not in the chat).")
    wrong = next((words for pattern, words in KEY_MISTAKES if re.match(pattern, key)), None)
    if wrong:
        raise Image2Error("malformed_key", f"{KEY_NAME} from {source} {wrong}. Ask the user to set it again.")
    return Settings(base, Key(key), source)


def known_secrets(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What no text of a run may show: the key, or the pieces of a malformed one. Never raises."""
    try:
        text = _find_key(environment)[0]
    except Exception:  # no python-dotenv yet, or a line that is wrong
        text = " ".join(line[3] for _number, line in _lines(_dotenv_text()))
    pieces = [piece.strip("'\"") for piece in text.replace(f"{KEY_NAME}=", " ").split()]
    return [piece for piece in pieces if len(piece) >= 8]


def host_sandbox(environment: Mapping[str, str] = os.environ) -> Optional[HostSandbox]:
    """The host's sandbox that this process runs in, as far as the environment tells."""
    return next((known for sign, known in SANDBOX_SIGNS.items() if environment.get(sign)), None)


def base_url(environment: Mapping[str, str] = os.environ) -> str:
    """The service's base URL, the same for all ways to write it. Raises `Image2Error` usage for an unusable one."""
    text = re.sub(r"(/+api(/+v1)?)?/*$", "", environment.get(BASE_NAME, "").strip()) or SITE
    found = re.fullmatch(BASE, text, re.ASCII)
    if not found or int(found[2] or 0) > 65535 or re.search(r"[?#\\]", text):
        raise Image2Error("usage", f"{BASE_NAME} must be https:// and a host (http:// only for 127.0.0.1 or localhost), "
                          f"without user name, query or fragment. Unset it to use {SITE}.")
    host = found[1].lower()
    return host.removesuffix(":443" if host.startswith("https") else ":80") + (found[3] or "")


def _find_key(environment: Mapping[str, str]) -> tuple[str, str]:
    """(key or "", where it came from). A name without a value is no key."""
    key = environment.get(KEY_NAME, "").strip()
    return (key, ENVIRONMENT) if key else (_key_of_dotenv(_dotenv_text()), DOTENV)


def _key_of_dotenv(text: str) -> str:
    found = _lines(text)
    if not found:
        return ""  # python-dotenv takes longer to load than all the rest, and may be missing
    wrong = _line_mistake(found)
    if wrong:
        raise Image2Error("malformed_key", f"{DOTENV}: {wrong}. Ask the user to write it as {KEY_NAME}=… on one line.")
    import io

    from dotenv import dotenv_values

    return (dotenv_values(stream=io.StringIO(text), interpolate=False).get(KEY_NAME) or "").strip()


def _lines(text: str) -> list[tuple[int, re.Match[str]]]:
    """The lines that set the key, with their numbers."""
    matches = [(number, re.match(LINE, line)) for number, line in enumerate(re.split(r"\r\n?|\n", text), 1)]
    return [(number, match) for number, match in matches if match]


def _line_mistake(found: list[tuple[int, re.Match[str]]]) -> Optional[str]:
    if len(found) > 1:
        return f"{KEY_NAME} stands there twice, in the lines {found[0][0]} and {found[1][0]}"
    number, line = found[0]
    if line[1].strip() not in ("", "export"):
        return f"line {number} has words in front of the name, as a shell has it"
    if line[2] != "=" and line[3].strip():
        return f"line {number} has no `=` behind the name"
    return f"line {number} opens a quote that it does not close" if re.match(UNCLOSED, line[3]) else None


def _dotenv_text() -> str:
    """The text of `.env` in the working folder; "" where there is none that can be one.

    A FIFO would hang the opening, a device the reading; /proc/kmsg calls itself a regular file, of no size.
    """
    try:
        with open(".env", "rb", buffering=0,
                  opener=lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            found = os.fstat(file.fileno())
            is_small_file = stat.S_ISREG(found.st_mode) and 0 < found.st_size <= MAX_DOTENV
            raw = file.read(MAX_DOTENV) or b"" if is_small_file else b""
    except OSError:
        return ""
    return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")
