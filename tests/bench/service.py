"""A service for the benchmarks: every request takes a fixed time, a task another, and a capacity can be set.

Run as a process of its own, so that its work does not count as the client's: prints its base URL, serves until
stdin is closed, then prints what it counted as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import common  # noqa: F401  finds pictures
import pictures


class Service(ThreadingHTTPServer):
    """Counts what it accepted and refused."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, options):
        super().__init__(("127.0.0.1", 0), Exchange)
        self.options, self.lock = options, threading.Lock()
        self.ends, self.counts = {}, {"accepted": 0, "refused": 0, "polls": 0}
        self.picture = pictures.png(64, 64, noise_bytes=options.bytes)
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}"


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        """An order, refused where as many run as there are places."""
        self.rfile.read(int(self.headers["Content-Length"]))
        server, options = self.server, self.server.options
        time.sleep(options.request_s)
        with server.lock:
            now = time.monotonic()
            full = 0 < options.capacity <= sum(end > now for end in server.ends.values())
            server.counts["refused" if full else "accepted"] += 1
            task_id = f"task-{server.counts['accepted']}"
            if not full:
                server.ends[task_id] = now + options.task_s
        if full:
            self.answer({"error": {"message": "too many tasks at once"}}, 429)
        else:
            self.answer({"created": 1, "task_id": task_id, "status": "pending", "data": [{"url": None}]})

    def do_GET(self):
        """A task, or a picture."""
        time.sleep(self.server.options.request_s)
        name = self.path.rpartition("/")[2]
        if "/tasks/" not in self.path:
            self.answer(self.server.picture)
            return
        with self.server.lock:
            self.server.counts["polls"] += 1
        done = time.monotonic() >= self.server.ends.get(name, float("inf"))
        url = f"{self.server.base_url}/generations/{name}.png" if done else None
        self.answer({"task_id": name, "status": "completed" if done else "processing", "data": [{"url": url}]})

    def answer(self, value, status=200):
        """Bytes as a picture, anything else as JSON."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "image/png" if body is value else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, default in (("request-s", 0.1), ("task-s", 1.0), ("capacity", 0), ("bytes", 20_000)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    service = Service(parser.parse_args())
    threading.Thread(target=service.serve_forever, daemon=True).start()
    print(service.base_url, flush=True)
    sys.stdin.read()
    print(json.dumps(service.counts), flush=True)
