"""What a full folder costs: `python folder.py [rounds] [orders]`. Ten finished orders against 10,000, side by side, medians.

`generate --no-wait --sandbox` and `wait` should cost at most 1.3 times as much: what a command goes on with is found by
names. `status`, which tells of all of them, is shown beside. The records are the tool's own store's, each with a picture.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from common import SCRIPT, environment, medians
from image2_cli.order.record import SAVED, Record, SavedImage
from image2_cli.order.store import Store
from pictures import png

FEW, BOUND = 10, 1.3
SERVICE = "https://image2.vip"
COMMANDS = {
    "generate --no-wait --sandbox": ["generate", "a fox, number {}", "--no-wait", "--sandbox"],
    "the same again": ["generate", "a fox", "--no-wait", "--sandbox"],
    "wait": ["wait"],
    "status": ["status"],
}


def fill(folder: Path, orders: int) -> None:
    """A folder in which so many orders are finished, an hour apart."""
    folder.mkdir()
    store, picture, now = Store(str(folder)), png(64, 64), time.time()
    store.problem()  # makes its folders
    for number in range(orders):
        name, created_s = f"fox-{number:05}.png", now - 3600.0 * (orders - number)
        (folder / name).write_bytes(picture)
        image = SavedImage(0, url=f"{SERVICE}/generations/{number}.png", file=name, width=64, height=64, bytes=len(picture),
                           sha256="0" * 64)
        request = {"model": "gpt-image-2", "prompt": f"a fox in the snow, number {number}", "n": 1}
        store.save(Record(str(uuid.uuid4()), uuid.uuid4().hex, SERVICE, SAVED, created_s=created_s, sent_s=created_s,
                          accepted_s=created_s, request=request, stem=name[:-4], task_id=f"task-{number}",
                          status="completed", images=[image]))


def run(words: list[str], out: Path, home: str) -> None:
    """Raises where it fails, with what it said."""
    command = [sys.executable, SCRIPT, *(word.format(uuid.uuid4().hex) for word in words), "--out", str(out)]
    done = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")


def main(rounds: int, orders: int) -> int:
    """Print the medians and their ratios; the exit status is 1 where one is over the bound."""
    with tempfile.TemporaryDirectory() as home:
        folders = {size: Path(home, f"of-{size}") for size in (FEW, orders)}
        for size, folder in folders.items():
            fill(folder, size)
        found = medians(rounds, {f"{name}, of {size}": lambda words=words, folder=folder: run(words, folder, home)
                                 for name, words in COMMANDS.items() for size, folder in folders.items()})
    ratios = {name: found[f"{name}, of {orders}"] / found[f"{name}, of {FEW}"] for name in COMMANDS}
    for name, ratio in ratios.items():
        print(f"{name:44} {ratio:7.2f} x")
    return int(max(ratio for name, ratio in ratios.items() if name != "status") > BOUND)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*given, *(11, 10_000)[len(given):]))
