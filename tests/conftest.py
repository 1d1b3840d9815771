"""What every test gets: the tool and the test equipment on sys.path, a clean environment, fixtures."""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent / "scripts"), str(TESTS)]

import faulty  # noqa: E402  the path comes first
import running  # noqa: E402

FOREIGN = {
    "IMAGE2_API_KEY", "IMAGE2_BASE_URL", "IMAGE2_NO_INSTALL",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Rooms tested inside this process must not see the developer's key, proxies or CA bundles either."""
    for name in [name for name in os.environ if name in FOREIGN or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def service():
    """A healthy service on this machine, to be scripted with on_post, on_poll, on_file."""
    with faulty.Service() as started:
        yield started


@pytest.fixture
def project(tmp_path):
    """The folder that the user works in: where `run` and `start` run the script."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def start(service, project, tmp_path):
    """running.start against `service`, in `project`, with its own home; what is left running is killed."""
    (tmp_path / "home").mkdir()
    begun = []

    def bound(*argv, env=None, **options) -> running.Started:
        options = {"cwd": project, "base_url": service.base_url, **options}
        begun.append(running.start(*argv, env={"HOME": tmp_path / "home", **(env or {})}, **options))
        return begun[-1]

    yield bound
    for process in begun:
        if process.returncode is None:
            process.kill()
            process.communicate(timeout=5)


@pytest.fixture
def run(start):
    """running.run, bound in the same way."""
    def bound(*argv, timeout=60, **options) -> running.Run:
        return start(*argv, **options).finish(timeout)
    return bound
