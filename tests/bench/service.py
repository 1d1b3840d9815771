"""The tests' service for the benchmarks: every request takes a fixed time, a task another, and a capacity can be set.

Run as a process of its own, so that its work does not count as the client's: prints its base URL, serves until
stdin is closed, then prints what it counted as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

import common  # noqa: F401  finds the tests' support
from faulty import Service, picture
from pictures import png
from tasks import Tasks

parser = argparse.ArgumentParser()
for name, default in (("request-s", 0.1), ("task-s", 1.0), ("capacity", 0), ("bytes", 20_000)):
    parser.add_argument(f"--{name}", type=type(default), default=default)
options = parser.parse_args()
with Service() as service:
    Tasks(service, options.task_s, options.capacity or math.inf, options.request_s)
    service.on_file(picture(png(64, 64, noise_bytes=options.bytes)).but(delay=options.request_s))
    print(service.base_url, flush=True)
    sys.stdin.read()
orders = service.orders
print(json.dumps({"accepted": orders, "refused": len(service.posts) - orders, "polls": len(service.polls)}))
