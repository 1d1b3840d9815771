"""What is left when a run has ended, however it ended: the pictures, the records, the command that goes on."""

import json
import os
import subprocess
from pathlib import Path

from image2_cli.pictures import image_check as raster
from running import CANARY, Run, assert_no_leftovers, whole


def pictures_in(folder) -> list[str]:
    """The names that a user sees there. Each of them is a whole picture, and no `.part` lies anywhere below."""
    names = sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))
    for name in names:
        with open(Path(folder) / name, "rb") as file:
            raster.inspect(file)
    assert_no_leftovers(folder)
    return names


def records_in(folder) -> list[dict]:
    """The records of an output folder as JSON, oldest first."""
    return [json.loads(path.read_text()) for path in record_paths(folder)]


def record_paths(folder) -> list[Path]:
    return sorted((Path(folder) / ".image2").glob("*.json"))


def edit_record(folder, **changes) -> None:
    """Change the only record there, as time or a disk fault would."""
    (path,) = record_paths(folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def run_next(answer: dict, service, home) -> Run:
    """Run an answer's `next` as an agent's shell would, from another folder."""
    env = whole({"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "IMAGE2_API_KEY": CANARY,
                 "IMAGE2_BASE_URL": service.base_url})
    done = subprocess.run(answer["next"], shell=True, cwd=os.sep, env=env, capture_output=True, timeout=60)
    output = (data.decode("utf-8", "surrogateescape") for data in (done.stdout, done.stderr))
    return Run((answer["next"],), done.returncode, *output, 0.0)
