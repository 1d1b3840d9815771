"""What the benchmarks share: the service in a process of its own, and medians of what is timed side by side."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
SCRIPT = str(HERE.parents[1] / "scripts" / "image2.py")
KEY = "canary-0123-not-a-real-one"
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parents[1] / "scripts")]


class Service:
    """tests/bench/service.py in a process of its own; `counts` once it has ended."""

    def __init__(self, **options: float) -> None:
        words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
        self.process = subprocess.Popen([sys.executable, HERE / "service.py", *words], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.base_url = self.process.stdout.readline().strip()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.counts = json.loads(self.process.communicate()[0])


def environment(home: str, service: Service | None = None) -> dict[str, str]:
    """What a process gets, and nothing else."""
    base = {"IMAGE2_BASE_URL": service.base_url} if service else {}
    return {"PATH": os.environ["PATH"], "HOME": home, "IMAGE2_API_KEY": KEY, **base}


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
