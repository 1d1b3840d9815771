"""Folders as runs leave them: pictures, and the records of their orders, written through the tool's own store."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Optional

import pictures
from image2_cli.order.record import Record, SavedImage
from image2_cli.order.store import Store

CREATED_S = 1_795_000_000.0
HOSTILE = ("</script></style></p><script>alert(1)</script><img src=http://127.0.0.1:9/x.png onerror=alert(2)>\"'>"
           "<svg onload=alert(3)><a href='javascript:alert(4)' style='background:url(http://127.0.0.1:9/y)'>"
           "&lt;{{cards}}{prompt}")


def put_record(folder: Path, number: int = 0, **fields: Any) -> Record:
    """One order's record; without `fields` a saved one of one picture, `number` seconds after the first."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(**{
        "id": str(uuid.UUID(int=number + 1_000_000)), "fingerprint": f"{number + 1_000_000:032x}", "state": "saved",
        "service": "https://image2.vip", "sequence": 1, "created_s": CREATED_S + number, "stem": "fox",
        "request": {"prompt": f"a fox, number {number}", "n": 1}, "task_id": f"task-{number}",
        "status": "completed", **fields})
    store = Store(str(folder))
    assert store.problem() is None
    store.save(record)
    return record


def put_picture(folder: Path, name: str = "fox.png", number: int = 0, prompt: Optional[str] = None, width: int = 48,
                height: int = 32, image: Optional[dict[str, Any]] = None, **fields: Any) -> Path:
    """A picture of the folder and the record of its order; `image` changes the record's entry of the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(pictures.png(width, height, color=(number * 37 % 256, number * 11 % 256, 160)))
    entry = SavedImage(**{"index": 0, "file": name, "width": width, "height": height, **(image or {})})
    request = {"prompt": f"a fox, number {number}" if prompt is None else prompt, "n": 1, "size": f"{width}x{height}"}
    put_record(folder, number, **{"request": request, "images": [entry], **fields})
    return path
