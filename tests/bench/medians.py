"""What is timed side by side, in medians of some rounds: `python medians.py startup|order|download|folder [rounds]`."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Callable

from common import SCRIPT, Service, environment
from image2_cli.clock import Clock
from image2_cli.order.record import SAVED, Record, SavedImage
from image2_cli.order.store import Store
from image2_cli.pictures import download
from pictures import png

SIZE = 200_000_000
FEW, MANY, BOUND = 10, 10_000, 1.3
CURL_LOOP = r"""
set -e
task=$(curl -sS -X POST "$IMAGE2_BASE_URL/api/v1/images/generations" -H "Authorization: Bearer $IMAGE2_API_KEY" \
  -H "Content-Type: application/json" -d '{"model": "gpt-image-2", "prompt": "a cat", "async": true}' \
  | sed 's/.*"task_id": "\([^"]*\)".*/\1/')
while :; do
  sleep 0.05
  seen=$(curl -sS "$IMAGE2_BASE_URL/api/v1/images/tasks/$task" -H "Authorization: Bearer $IMAGE2_API_KEY")
  case "$seen" in *'"status": "completed"'*) break;; esac
done
curl -sS -o cat.png "$(echo "$seen" | sed 's/.*"url": "\([^"]*\)".*/\1/')"
"""


def medians(rounds: int, cases: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of each case, one after the other in every round; the first round warms the caches."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, work in cases.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    found = {name: statistics.median(seconds[1:]) * 1000 for name, seconds in times.items()}
    for name, milliseconds in found.items():
        print(f"{name:44} {milliseconds:7.1f} ms")
    return found


def run(words: list[str], folder: str, own: dict[str, str], exits: tuple[int, ...] = (0,)) -> None:
    """Raises where it ends in another way, with what it said."""
    done = subprocess.run(words, cwd=folder, env=own, capture_output=True, check=False)
    if done.returncode not in exits:
        raise SystemExit(f"{words}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")


def startup(rounds: int = 20) -> None:
    """--help, a usage error and a missing key against an empty Python."""
    cases = {"python3 -c pass": ["-c", "pass"], "--help": [SCRIPT, "generate", "--help"],
             "usage error": [SCRIPT, "generate", "x", "--n", "99"], "missing key": [SCRIPT, "generate", "x"]}
    with tempfile.TemporaryDirectory() as folder:
        keyless = {**environment(folder), "IMAGE2_API_KEY": ""}
        found = medians(rounds, {name: lambda words=words: run([sys.executable, *words], folder, keyless, (0, 2, 4))
                                 for name, words in cases.items()})
    for name in cases:
        print(f"{name:44} {found[name] / found['python3 -c pass']:7.2f} x")


def one_order(rounds: int = 11) -> None:
    """One order against a shell loop with curl doing the same.

    Both poll every 50 ms and the task ends at once, so that what is left is start-up, the order, one look, one download.
    """
    ours = [sys.executable, SCRIPT, "generate", "a cat", "--poll-interval", "0.05", "--new"]
    with Service(task_s=0.0, request_s=0.0, bytes=2_000_000) as service, tempfile.TemporaryDirectory() as folder:
        own = environment(folder, service)
        found = medians(rounds, {"curl loop": lambda: run(["bash", "-c", CURL_LOOP], folder, own),
                                 "image2.py": lambda: run(ours, folder, own)})
    print(f"difference {found['image2.py'] - found['curl loop']:6.0f} ms")


def big_download(rounds: int = 5) -> None:
    """200 MB against curl, and the memory it takes; the tool's own bound of 64 MiB is lifted for that."""
    def peak_mb() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    download.MAX_BYTES = 2 * SIZE
    clock, before = Clock(), peak_mb()
    with Service(request_s=0.0, bytes=SIZE) as service, tempfile.TemporaryDirectory() as folder:
        url, source = f"{service.base_url}/generations/x-0.png", download.Source(service.base_url, clock)

        def ours() -> None:
            saved = download.fetch(url, download.new_part(folder, "benchmark", 0), source, clock.now() + 600)
            Path(saved.part).unlink()

        curl = ["curl", "-sS", "-o", str(Path(folder, "curl.png")), url]
        found = medians(rounds, {"curl": lambda: subprocess.run(curl, check=True), "download.fetch": ours})
    print(f"rate {found['curl'] / found['download.fetch']:.2f} x curl's; peak {peak_mb()} MB, {before} MB before")


def full_folder(rounds: int = 11) -> None:
    """A command in a folder with 10,000 finished orders against one with ten: it finds what it goes on with by names.

    `status`, which tells of all of them, is shown beside. The exit status is 1 where another is over the bound.
    """
    commands = {"generate --no-wait --sandbox": ["generate", "a fox, number {}", "--no-wait", "--sandbox"],
                "the same again": ["generate", "a fox", "--no-wait", "--sandbox"], "wait": ["wait"], "status": ["status"]}

    def work(words: list[str], out: Path) -> None:
        run([sys.executable, SCRIPT, *(word.format(uuid.uuid4().hex) for word in words), "--out", str(out)],
            str(out.parent), environment(str(out.parent)))

    with tempfile.TemporaryDirectory() as home:
        folders = {size: Path(home, f"of-{size}") for size in (FEW, MANY)}
        for size, path in folders.items():
            fill(path, size)
        found = medians(rounds, {f"{name}, of {size}": lambda words=words, path=path: work(words, path)
                                 for name, words in commands.items() for size, path in folders.items()})
    ratios = {name: found[f"{name}, of {MANY}"] / found[f"{name}, of {FEW}"] for name in commands}
    for name, ratio in ratios.items():
        print(f"{name:44} {ratio:7.2f} x")
    sys.exit(max(ratio for name, ratio in ratios.items() if name != "status") > BOUND)


def fill(path: Path, orders: int) -> None:
    """A folder in which so many orders are finished, an hour apart; the records are the tool's own store's."""
    path.mkdir()
    store, picture, now = Store(str(path)), png(64, 64), time.time()
    store.problem()  # makes its folders
    for number in range(orders):
        name, created_s = f"fox-{number:05}.png", now - 3600.0 * (orders - number)
        (path / name).write_bytes(picture)
        image = SavedImage(0, url=f"https://image2.vip/{number}.png", file=name, width=64, height=64, bytes=len(picture),
                           sha256="0" * 64)
        request = {"model": "gpt-image-2", "prompt": f"a fox in the snow, number {number}", "n": 1}
        store.save(Record(str(uuid.uuid4()), uuid.uuid4().hex, "https://image2.vip", SAVED, created_s=created_s,
                          sent_s=created_s, accepted_s=created_s, request=request, stem=name[:-4],
                          task_id=f"task-{number}", status="completed", images=[image]))


if __name__ == "__main__":
    case = {"startup": startup, "order": one_order, "download": big_download, "folder": full_folder}[sys.argv[1]]
    case(*map(int, sys.argv[2:]))
