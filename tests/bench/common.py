"""What the benchmarks share: the script, its environment, and the service in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
