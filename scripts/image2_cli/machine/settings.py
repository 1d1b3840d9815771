"""The key and the base URL: the only reader of the environment and of the working folder's dotenv file.

Takes exactly two names. `IMAGE2_API_KEY` from the environment, else that one name out of the dotenv file in
the working folder itself. `IMAGE2_BASE_URL` from the real environment only: a project's file that could set
it would send the user's key wherever it likes (CVE-2026-21852 in another agent's tool). Never `load_dotenv`:
it takes proxies, CA bundles and LD_PRELOAD out of any project. Touches no network.
"""

from __future__ import annotations

import os
import re
import stat
from collections import namedtuple

from ..errors import Image2Error

KEY_NAME, BASE_NAME = "IMAGE2_API_KEY", "IMAGE2_BASE_URL"
DEFAULT_BASE = "https://image2.vip"
SITE = "https://image2.vip"
MAX_DOTENV = 64 * 1024
# A host's sandbox shows itself by one of these: its name, and what opens its network.
_CODEX = ("Codex", "network_access = true below [sandbox_workspace_write] in its config.toml")
SANDBOX_SIGNS = {
    "CODEX_SANDBOX_NETWORK_DISABLED": _CODEX,
    "CODEX_SANDBOX": _CODEX,
    "SANDBOX_RUNTIME": ("Claude Code", "the host in sandbox.network.allowedDomains of its settings"),
    "CURSOR_SANDBOX": ("Cursor", "the host in networkPolicy.allow of .cursor/sandbox.json"),
}


class Key(str):
    """The API key; prints as stars wherever it is shown by accident."""

    def __repr__(self):
        return "Key(***)"


class Settings(namedtuple("Settings", "base_url key key_source is_sandbox", defaults=(False,))):
    """Whom to ask and with what. `key_source` says where the key came from; `is_sandbox`: `--sandbox`."""

    __slots__ = ()

    @property
    def is_loopback(self) -> bool:
        """The service is on this machine: plain http is allowed, proxies are not used."""
        from urllib.parse import urlsplit

        return is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def service(self) -> str:
        """The name of the service in records: a stand-in's port changes, its tasks live on."""
        return "sandbox" if self.is_sandbox else self.base_url


def for_sandbox(base_url: str, key: str) -> Settings:
    """Settings for the stand-in of this run, with its own key; the user's stays out of it."""
    return Settings(base_url, Key(key), "sandbox", True)


def base_url(environment=os.environ) -> str:
    """The service's base URL. Raises `Image2Error` usage where the environment names an unusable one."""
    text = environment.get(BASE_NAME, "").strip().rstrip("/") or DEFAULT_BASE
    wrong = _base_mistake(text)
    if wrong:
        raise Image2Error("usage", "%s %s. Unset it to use %s." % (BASE_NAME, wrong, SITE))
    return text


def read(environment=os.environ) -> Settings:
    """Both settings. Raises `Image2Error` missing_key or malformed_key; no text of it holds the key."""
    base = base_url(environment)
    key, source = find_key(environment)
    if not key:
        raise Image2Error("missing_key", "%s is not set. Ask the user to create a key at %s and to set the variable where "
                          "the agent starts, or in the working folder's dotenv file (not in the chat)." % (KEY_NAME, SITE))
    if not re.fullmatch(r"[\x21-\x7e]{8,512}", key):
        raise Image2Error("malformed_key", "%s from %s is malformed: a key has 8 to 512 visible ASCII characters, "
                          "no blanks inside. Ask the user to set it again." % (KEY_NAME, source))
    return Settings(base, Key(key), source)


def find_key(environment=os.environ):
    """(key or "", where it came from). A name without a value is no key."""
    key = environment.get(KEY_NAME, "").strip()
    if key:
        return key, "the environment"
    return _from_dotenv(), "the dotenv file of the working folder"


def known_secrets(environment=os.environ) -> list:
    """What no text of a run may show: the key, or the pieces of a malformed one. Never raises."""
    try:
        keys = [find_key(environment)[0]]
    except Exception:  # no python-dotenv yet: on a bare machine a prompt with the key was sent
        keys = _guesses()
    return [piece for key in keys for piece in key.split() if len(piece) >= 8]


def host_sandbox(environment=os.environ):
    """(name, what opens its network) of the host's sandbox this process runs in, as far as the environment tells."""
    return next((known for sign, known in SANDBOX_SIGNS.items() if environment.get(sign)), None)


def is_loopback(host: str) -> bool:
    """Only spellings nobody can mistake: no short forms, no numbers, no names but localhost."""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}", host))


def _from_dotenv() -> str:
    texts = _dotenv_texts()
    if not texts:
        return ""  # python-dotenv takes longer to load than all the rest, and may be missing
    import io

    from dotenv import dotenv_values, find_dotenv

    # The library knows the file's name; but it walks up to the root, and what lies above is another project's.
    text = texts.get(find_dotenv(usecwd=True), "")
    return (dotenv_values(stream=io.StringIO(text), interpolate=False).get(KEY_NAME) or "").strip()


def _guesses() -> list:
    """What the file may call the key, told without python-dotenv; rather too much."""
    # Ahead only: the quote that a comment opens must not swallow the line with the key.
    value = r"""'?[^\S\r\n]*=[^\S\r\n]*(?=('(?:\\'|[^'])*'|"(?:\\"|[^"])*"|(?:(?!\s#)[^\r\n])*))"""
    found = [each for text in _dotenv_texts().values() for each in re.findall(KEY_NAME + value, text)]
    plain = [re.sub(r"\\(?:([\\'\"])|[abfnrtv])", lambda escape: escape[1] or " ", each[1:-1]) for each in found]
    return [*found, *(each[1:-1] for each in found), *plain]


def _dotenv_texts() -> dict:
    """{path: text} of the working folder's dotenv file, if that names the key."""
    try:
        folder = os.getcwd()
        texts = {os.path.join(folder, name): _text(os.path.join(folder, name))
                 for name in os.listdir(folder) if name[:1] == "." and name[1:] == "env"}
    except OSError:
        return {}
    return {path: text for path, text in texts.items() if KEY_NAME in text}


def _text(path: str) -> str:
    # A FIFO would hang the read and a device feed it for ever, so look at what it is before opening it.
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_DOTENV:
            return ""
        with open(path, "rb") as file:
            return file.read(MAX_DOTENV).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _base_mistake(text: str):
    if text == DEFAULT_BASE:
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", text) or "\\" in text:
        return "holds characters a URL cannot have"
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return "is no URL"
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        return "must not hold a user name or password"
    if parts.query or parts.fragment or "?" in text or "#" in text:
        return "must not hold a query or fragment"
    if not host or not re.fullmatch(r"[A-Za-z0-9.-]+|[0-9a-f:]+", host):
        return "names no host"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "must be https:// (http only for 127.0.0.1 or localhost)"
