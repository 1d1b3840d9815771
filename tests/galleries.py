"""Folders as runs leave them: pictures, and records written as JSON, so that they can also be wrong in every way."""

import json
from pathlib import Path

import pictures

CREATED_S = 1_795_000_000.0
ODD_NAMES = ["a b.png", "quo'te\".png", "ha#sh.png", "100%41.png", "what?.png", "雪地里的狐狸.png", "new\nline.png",
             "javascript:alert(1).png", "<b>&amp;.png", "back\\slash.png"]  # as POSIX takes them


def put_record(folder: Path, number: int = 0, **fields) -> dict:
    """One order's record; without `fields` a finished one of one picture, `number` seconds after the first."""
    record = {
        "version": 1, "id": f"{number:08d}-0000-4000-8000-000000000000", "created_s": CREATED_S + number,
        "sent_s": CREATED_S + number, "state": "finished", "service": "https://image2.vip", "fingerprint": "f",
        "request": {"prompt": f"a fox, number {number}", "n": 1}, "stem": "fox", "task_id": f"task-{number}",
        "accepted_s": CREATED_S + number, "status": "completed", "images": [], "error": None, **fields,
    }
    (folder / ".image2").mkdir(parents=True, exist_ok=True)
    path = folder / ".image2" / f"{number:08d}.json"
    path.write_text(json.dumps(record), encoding="ascii")
    return record


def put_picture(folder: Path, name: str = "fox.png", number: int = 0, prompt: str | None = None, width=48, height=32,
                image=None, **fields) -> Path:
    """A picture of the folder and the record of its order; `image` changes the record's entry of the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(pictures.png(width, height, color=(number * 37 % 256, number * 11 % 256, 160)))
    entry = {"index": 0, "path": str(path), "width": width, "height": height, "url": None, "revised_prompt": None,
             "error": None, **(image or {})}
    request = {"prompt": f"a fox, number {number}" if prompt is None else prompt, "n": 1, "size": f"{width}x{height}"}
    put_record(folder, number, **{"request": request, "images": [entry], **fields})
    return path
