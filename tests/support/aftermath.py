"""What is left when a run has ended, however it ended: the records, and the command that goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from running import CANARY, Run, Started


def record_paths(folder: Path | str) -> list[Path]:
    """The files of the records anywhere below a folder, settled ones too, oldest order first."""
    paths = [path for path in Path(folder).rglob("*.json") if ".image2" in path.parts]
    return sorted(paths, key=lambda path: (json.loads(path.read_text(encoding="utf-8"))["created_s"], path.name))


def records_in(folder: Path | str) -> list[dict]:
    """The records anywhere below a folder as JSON, oldest order first."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in record_paths(folder)]


def state(folder: Path | str) -> str | None:
    """The state of the one record below `folder`; None where there is no record."""
    found = records_in(folder)
    assert len(found) <= 1, found
    return found[0]["state"] if found else None


def edit_record(folder: Path | str, **changes: Any) -> None:
    """Change the only record there, as time or a disk fault would."""
    (path,) = record_paths(folder)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def run_next(answer: dict, service: Any, home: Path | str) -> Run:
    """Run an answer's `next` as an agent's shell would, from another folder."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "IMAGE2_API_KEY": CANARY,
           "IMAGE2_BASE_URL": service.base_url}
    return Started(answer["next"], env, os.sep, shell=True).finish()
