"""Bulk orders against the ideal and against one thread a task: `python batch.py [rounds]`, in the tests' environment.

The ideal is one task's time plus what the requests of all orders (submit, one look, one download) need at the given
concurrency. Ratios within one round, medians of the rounds.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

HERE = Path(__file__).resolve().parent
SCRIPT = str(HERE.parents[1] / "scripts" / "image2.py")
KEY = "canary-0123-not-a-real-one"


class Service:
    """tests/bench/service.py in a process of its own; `counts` once it has ended."""

    def __init__(self, **options):
        words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
        self.process = subprocess.Popen([sys.executable, HERE / "service.py", *words], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.base_url = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        out, _none = self.process.communicate()
        self.counts = json.loads(out)


def ours(service, orders, concurrency, folder, timeout=600):
    """(seconds, answer, peak resident MB) of `image2.py batch`."""
    rows = Path(folder, "orders.txt")
    rows.write_text("".join("picture number %d\n" % number for number in range(orders)))
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "IMAGE2_API_KEY": KEY, "IMAGE2_BASE_URL": service.base_url}
    words = [sys.executable, SCRIPT, "batch", str(rows), "--out", str(Path(folder, "out")), "--max-images", "5000",
             "--concurrency", str(concurrency), "--timeout", str(timeout)]
    started = time.perf_counter()
    process = subprocess.Popen(words, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = process.stdout.read()
    _pid, _status, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return time.perf_counter() - started, json.loads(out), usage.ru_maxrss / 1024


def one_thread_a_task(service, orders, concurrency, folder):
    """Seconds of the plain way: each thread submits, polls each second, downloads, then takes the next."""
    headers = {"Authorization": "Bearer " + KEY}

    def order(number):
        with requests.Session() as session:
            session.trust_env = False
            asked = {"model": "gpt-image-2", "prompt": "picture %d" % number, "async": True}
            base = service.base_url + "/api/v1/images/"
            task = session.post(base + "generations", json=asked, headers=headers, timeout=30).json()["task_id"]
            while True:
                seen = session.get(base + "tasks/" + task, headers=headers, timeout=30).json()
                if seen["status"] == "completed":
                    break
                time.sleep(1)
            Path(folder, "plain-%d.png" % number).write_bytes(session.get(seen["data"][0]["url"], timeout=30).content)

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(order, range(orders)))
    return time.perf_counter() - started


def ideal(orders, concurrency, task_s, request_s, capacity=0):
    """Seconds that nothing could beat."""
    if capacity:
        return -(-orders // capacity) * task_s + 3 * request_s
    return task_s + 3 * orders * request_s / concurrency


def case(name, rounds, orders, concurrency, task_s, request_s=0.1, capacity=0, size=20_000, plain=False):
    """Run one case and print its medians."""
    ratios, against, peaks, refused = [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            with Service(task_s=task_s, request_s=request_s, capacity=capacity, bytes=size) as service:
                seconds, answer, peak = ours(service, orders, concurrency, folder)
            if answer["counts"]["completed"] != orders or service.counts["accepted"] != orders:
                raise SystemExit("%s: %s %s" % (name, answer, service.counts))
            refused.append(service.counts["refused"])
            if plain:
                with Service(task_s=task_s, request_s=request_s, bytes=size) as service:
                    against.append(one_thread_a_task(service, orders, concurrency, folder) / seconds)
        ratios.append(seconds / ideal(orders, concurrency, task_s, request_s, capacity))
        peaks.append(peak)
    middle = statistics.median
    print("%-44s %5.2f s  %4.2f x ideal  %3.0f MB  %2d refused  %3d polls%s" % (
        name, seconds, middle(ratios), max(peaks), middle(refused), service.counts["polls"],
        "  one thread a task: %.1f x slower" % middle(against) if plain else ""), flush=True)


def main(rounds: int):
    """All cases."""
    case("32 tasks of 1 s, concurrency 8", rounds, 32, 8, 1.0, plain=True)
    case("200 tasks of 2 s, concurrency 16", rounds, 200, 16, 2.0)
    case("200 tasks of 2 s, pictures of 2 MB", rounds, 200, 16, 2.0, size=2_000_000)
    case("40 tasks of 1 s, the service takes 4 at once", rounds, 40, 8, 1.0, capacity=4)
    for orders in (500, 1000, 2000):
        case("%d tasks of 0.1 s, no delay" % orders, 1, orders, 8, 0.1, request_s=0.0)
    print("peak of this process: %d MB" % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
