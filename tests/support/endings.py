"""How a call of the tool's own ended, as a value: a test compares an error like any other result."""

from __future__ import annotations

from typing import Any, Callable

from image2_cli.errors import Image2Error
from running import CANARY

ORDER = b'{"prompt": "a cat", "async": true}'


def ended(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What `work` returns, or the `Image2Error` it raises, whose texts hold no key."""
    try:
        return work(*arguments, **named)
    except Image2Error as error:
        assert CANARY not in repr((error.message, error.server_message))
        return error
