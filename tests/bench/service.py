"""A service for the benchmarks: every request takes a fixed time, a task another, and a capacity can be set.

Run as a process of its own, so that its work does not count as the client's: prints its base URL, serves until
stdin is closed, then prints what it counted as JSON.
"""

import argparse
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import pictures


class Service(ThreadingHTTPServer):
    """Counts what it accepted and refused."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, options):
        super().__init__(("127.0.0.1", 0), Exchange)
        self.options = options
        self.lock = threading.Lock()
        self.ends, self.counts = {}, {"accepted": 0, "refused": 0, "polls": 0, "files": 0}
        self.picture = pictures.png(64, 64, noise_bytes=options.bytes)
        self.base_url = "http://127.0.0.1:%d" % self.server_address[1]


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        """Accept an order, or refuse it where as many run as there are places."""
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.options.request_s)
        server, now = self.server, time.monotonic()
        with server.lock:
            running = sum(end > now for end in server.ends.values())
            full = server.options.capacity and running >= server.options.capacity
            server.counts["refused" if full else "accepted"] += 1
            task_id = "task-%d" % server.counts["accepted"]
            if not full:
                server.ends[task_id] = now + server.options.task_s
        if full:
            self.tell({"error": {"message": "too many tasks at once"}}, 429)
        else:
            self.tell({"created": 1, "task_id": task_id, "status": "pending", "data": [{"url": None}]})

    def do_GET(self):
        """Tell of a task, or send a picture."""
        time.sleep(self.server.options.request_s)
        name = self.path.rpartition("/")[2]
        if "/tasks/" not in self.path:
            self.count("files")
            self.send(self.server.picture, "image/png")
            return
        self.count("polls")
        done = time.monotonic() >= self.server.ends.get(name, float("inf"))
        url = "%s/generations/%s.png" % (self.server.base_url, name) if done else None
        self.tell({"task_id": name, "status": "completed" if done else "processing", "progress": 100 if done else 0,
                   "data": [{"url": url}], "error": None})

    def count(self, what):
        """One more."""
        with self.server.lock:
            self.server.counts[what] += 1

    def tell(self, value, status=200):
        """Answer in JSON."""
        self.send(json.dumps(value).encode(), "application/json", status)

    def send(self, body, kind, status=200):
        """Answer with bytes."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


def main():
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--request-s", type=float, default=0.1)
    parser.add_argument("--task-s", type=float, default=1.0)
    parser.add_argument("--capacity", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=20_000)
    service = Service(parser.parse_args())
    threading.Thread(target=service.serve_forever, daemon=True).start()
    print(service.base_url, flush=True)
    sys.stdin.read()
    print(json.dumps(service.counts), flush=True)


if __name__ == "__main__":
    main()
