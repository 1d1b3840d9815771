"""What every test gets: the tool and the test equipment on sys.path, a clean environment, fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS / "support")]

import faulty  # noqa: E402  the path comes first
import running  # noqa: E402

FOREIGN = {
    "IMAGE2_API_KEY", "IMAGE2_BASE_URL", "IMAGE2_NO_INSTALL",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that runs the script is slow, whether its file says so or not."""
    for item in items:
        if "start" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test in this process sees the developer's key, proxies or CA bundles; a quick one starts no process."""
    for name in [name for name in os.environ if name in FOREIGN or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(subprocess, "Popen", _refuse_process)


def _refuse_process(*words: Any, **_: Any) -> None:
    raise AssertionError(f"a test that starts a process needs the mark `slow`: {words}")


@pytest.fixture
def service() -> Iterator[faulty.Service]:
    """A healthy service on this machine, to be scripted with on_post, on_poll, on_file."""
    with faulty.Service() as started:
        yield started


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder that the user works in: where `run` and `start` run the script."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def start(service: faulty.Service, project: Path, tmp_path: Path) -> Iterator[Callable[..., running.Started]]:
    """running.start against `service`, in `project`, with its own home; what is left running is killed."""
    (tmp_path / "home").mkdir()
    begun = []

    def bound(*argv: Any, env: dict | None = None, **options: Any) -> running.Started:
        options = {"cwd": project, "base_url": service.base_url, **options}
        begun.append(running.start(*argv, env={"HOME": tmp_path / "home", **(env or {})}, **options))
        return begun[-1]

    yield bound
    for process in begun:
        if process.returncode is None:
            process.kill()
            process.communicate(timeout=5)


@pytest.fixture
def run(start: Callable[..., running.Started]) -> Callable[..., running.Run]:
    """running.run, bound in the same way."""
    def bound(*argv: Any, timeout: float = 60, **options: Any) -> running.Run:
        return start(*argv, **options).finish(timeout)
    return bound
