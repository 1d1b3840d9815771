"""Bulk orders against the ideal: `python batch.py [rounds]`.

The ideal is one task's time plus what the requests of all orders (submit, one look, one download) need at the given
concurrency. Ratios within one round, medians of the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import SCRIPT, Service, environment


def ours(service: Service, orders: int, concurrency: int, folder: str) -> tuple[float, dict, float]:
    """(seconds, answer, peak resident MB) of `image2.py batch`."""
    rows = Path(folder, "orders.txt")
    rows.write_text("".join(f"picture number {number}\n" for number in range(orders)))
    words = [sys.executable, SCRIPT, "batch", str(rows), "--out", str(Path(folder, "out")), "--max-images", "5000",
             "--concurrency", str(concurrency), "--timeout", "600"]
    started = time.perf_counter()
    process = subprocess.Popen(words, env=environment(folder, service), cwd=folder, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    out = process.stdout.read()
    _pid, _status, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return time.perf_counter() - started, json.loads(out), usage.ru_maxrss / 1024


def ideal(orders: int, concurrency: int, task_s: float, request_s: float, capacity: int = 0) -> float:
    """Seconds that nothing could beat."""
    if capacity:
        return -(-orders // capacity) * task_s + 3 * request_s
    return task_s + 3 * orders * request_s / concurrency


def case(name: str, rounds: int, orders: int, concurrency: int, task_s: float, request_s: float = 0.1, capacity: int = 0,
         size: int = 20_000) -> None:
    """Run one case and print its medians."""
    ratios, peaks, refused = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            with Service(task_s=task_s, request_s=request_s, capacity=capacity, bytes=size) as service:
                seconds, answer, peak = ours(service, orders, concurrency, folder)
            if answer["counts"]["completed"] != orders or service.counts["accepted"] != orders:
                raise SystemExit(f"{name}: {answer} {service.counts}")
            refused.append(service.counts["refused"])
        ratios.append(seconds / ideal(orders, concurrency, task_s, request_s, capacity))
        peaks.append(peak)
    middle = statistics.median
    print(f"{name:44} {seconds:5.2f} s  {middle(ratios):4.2f} x ideal  {max(peaks):3.0f} MB  "
          f"{middle(refused):2.0f} refused  {service.counts['polls']:3} polls", flush=True)


def main(rounds: int) -> None:
    """All cases."""
    # a first look comes at 5 s: tasks of one second would only measure that
    case("24 tasks of 6 s, concurrency 8", rounds, 24, 8, 6.0)
    case("24 tasks of 6 s, the service takes 4 at once", rounds, 24, 8, 6.0, capacity=4)
    case("200 tasks of 6 s, pictures of 2 MB", rounds, 200, 16, 6.0, size=2_000_000)
    for orders in (500, 1000, 2000):
        case(f"{orders} tasks of 0.1 s, no delay", 1, orders, 8, 0.1, request_s=0.0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
