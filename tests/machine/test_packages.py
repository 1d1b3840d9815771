"""The first command on a bare machine: real interpreters without packages, real pip, real uv."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
import running
from faulty import closed_port, drip, hang, page
from image2_cli.machine import packages
from platforms import needs_posix

pytestmark = [needs_posix, pytest.mark.slow,  # bin/python, uv as a script
              pytest.mark.xdist_group("one download of the wheels is enough")]

SYSTEM_PATH = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
UV = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
needs_uv = pytest.mark.skipif(not UV, reason="there is no uv on this machine")
# what this machine needs to reach PyPI
MACHINE = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "CERT" in name
           or "CA_BUNDLE" in name or name.lower().endswith("_proxy")}
SAID = "first run: fetching requests and python-dotenv into"
WANTED = [f"{name}>={floor},<{ceiling}" for name, floor, ceiling in packages.requirements(str(running.SCRIPT))]


def make_bare(folder: Path, pip: bool = True) -> Path:
    """An interpreter of its own without a package; with the developer's pip in it, for ensurepip takes 3 s."""
    venv.create(folder, with_pip=False, symlinks=sys.platform == "darwin")  # a copy does not find its framework there
    site = next(folder.glob("lib/*/site-packages"))
    if pip:
        shutil.copytree(Path(importlib.util.find_spec("pip").origin).parent, site / "pip")
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    return make_bare(tmp_path_factory.mktemp("bare") / "venv")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """The wheels themselves, fetched from PyPI once."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "-d", folder, *WANTED]
    done = subprocess.run(command, env={**os.environ, **MACHINE}, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("PyPI cannot be reached: " + done.stderr[-200:])
    return folder


@pytest.fixture
def cache(tmp_path):
    return (tmp_path / "Library" / "Caches" if sys.platform == "darwin" else tmp_path / "cache") / "image2"


@pytest.fixture
def offline(tmp_path):
    """An environment in which neither pip nor uv reaches anything, and nobody's home is touched."""
    (tmp_path / "tmp").mkdir()
    with closed_port() as nowhere:
        yield {"PATH": SYSTEM_PATH, "HOME": tmp_path, "XDG_CACHE_HOME": tmp_path / "cache", "TMPDIR": tmp_path / "tmp",
               "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": nowhere,
               "UV_CACHE_DIR": tmp_path / "uv", "UV_DEFAULT_INDEX": nowhere, "UV_PYTHON_DOWNLOADS": "never"}


@pytest.fixture
def stocked(offline, wheels):
    """The same with the wheels at hand."""
    return {**offline, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, "UV_OFFLINE": "1", "UV_FIND_LINKS": wheels,
            "UV_PYTHON": f"3.{sys.version_info.minor}"}     # for which the wheels are


@pytest.fixture
def begin(service, tmp_path):
    """Begin the cheapest verb that needs the packages: one look at a task of `service`."""
    return lambda *words, **options: running.start(*(words or ("status", "t-1")), base_url=service.base_url, cwd=tmp_path,
                                                   **options)


@pytest.fixture
def look(begin):
    return lambda *words, **options: begin(*words, **options).finish()


@pytest.fixture
def beside_uv(tmp_path):
    folder = tmp_path / "uv-bin"
    folder.mkdir()
    (folder / "uv").symlink_to(UV)
    return os.pathsep.join([str(folder), os.path.join(sys.base_prefix, "bin"), SYSTEM_PATH])


def program(path: Path, *lines: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


@pytest.fixture
def silent_index(service):
    """An index that never answers: requests for it are `service.files`."""
    service.on_file(hang(30))
    return f"{service.base_url}/simple"


@pytest.fixture
def launcher(tmp_path):
    """What `launcher()` says in a process that is started by these words."""
    script = tmp_path / "asks.py"
    script.write_text("# /// script\n# dependencies = []\n# ///\n"
                      f"import sys\nsys.path.insert(0, {str(running.SCRIPT.parent)!r})\n"
                      "from image2_cli.machine.packages import launcher\nprint(*launcher())\n")
    return lambda python, *flags, **env: running.run(python=python, flags=flags, script=script, env=env).stdout.strip()


def refused(done, *words):
    """A run that ended with missing_dependency and a message that says all these words."""
    assert (2, "missing_dependency") == (done.exit, done.json["error"]["code"]), done
    message = done.json["error"]["message"]
    assert [] == [word for word in words if word not in message], message


# --- a private copy

def test_a_bare_interpreter_fetches_the_packages_once_and_by_no_pip_of_the_project(
        bare, tmp_path, look, stocked, offline, cache):
    """The working folder is the project's; `-m` looks there first. The umask is one that lets everybody write."""
    (tmp_path / "pip.py").write_text("open('stolen', 'w')")
    first = look(python=bare, env=stocked, preexec_fn=lambda: os.umask(0))
    assert (0, 1) == (first.exit, first.stderr.count(SAID)), first
    [made] = cache.iterdir()
    assert {0o700} == {path.stat().st_mode & 0o777 for path in (cache, made)}
    assert [] == [path for path in made.rglob("*") if path.stat().st_mode & 0o022]
    again = look(python=bare, env=offline)      # pip could not work now
    assert (0, 0) == (again.exit, again.stderr.count(SAID)), again
    assert 0 == look(python=bare, env={**offline, "IMAGE2_NO_INSTALL": "1"}).exit  # which forbids fetching only
    assert [made] == list(cache.iterdir())
    assert [] == list(tmp_path.rglob("stolen"))


def test_an_interpreter_without_pip_gets_it_from_a_venv(tmp_path, look, stocked):
    assert 0 == look(python=make_bare(tmp_path / "no-pip", pip=False), env=stocked).exit


def test_the_isolated_mode_finds_the_private_copy_also_through_a_link(bare, tmp_path, look, stocked):
    (tmp_path / "elsewhere.py").symlink_to(running.SCRIPT)
    assert 0 == look(python=bare, env=stocked, script=tmp_path / "elsewhere.py", flags=("-I",)).exit


def test_a_broken_private_copy_is_made_anew(bare, look, stocked, cache):
    assert 0 == look(python=bare, env=stocked).exit
    [path] = cache.glob("*/requests/sessions.py")
    path.write_bytes(b"")   # as after a power cut
    mended = look(python=bare, env=stocked)
    assert (0, 1) == (mended.exit, mended.stderr.count(SAID)), mended
    assert path.read_bytes() and 1 == len(list(cache.iterdir()))


THEIRS = ["another's"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # only root can make one


@pytest.mark.parametrize("fault", ["writable", "a link", *THEIRS])
def test_a_private_copy_that_somebody_else_can_write_is_not_imported(fault, bare, tmp_path, look, stocked, cache):
    assert 0 == look(python=bare, env=stocked).exit
    module = next(cache.iterdir()) / "requests" / "__init__.py"
    module.write_text("open('stolen', 'w')\n")
    if fault == "writable":
        module.chmod(0o666)
    elif fault == "a link":
        module.rename(tmp_path / "planted.py")
        module.symlink_to(tmp_path / "planted.py")
    else:
        os.chown(module, 54321, 54321)
    done = look(python=bare, env=stocked)
    assert (0, 1) == (done.exit, done.stderr.count(SAID)), done
    assert [] == list(tmp_path.rglob("stolen"))


def test_two_first_runs_at_once_both_end_well(bare, begin, stocked, cache):
    both = [begin(python=bare, env=stocked) for _ in range(2)]
    assert [0, 0] == [each.finish().exit for each in both]
    assert 1 == len(list(cache.iterdir()))


def test_a_first_run_killed_while_pip_runs_leaves_no_half_copy(bare, begin, look, stocked, offline, service, silent_index):
    killed = begin(python=bare, env={**offline, "PIP_INDEX_URL": silent_index})
    service.wait_for("file", timeout=20)
    killed.kill()
    killed.finish()
    assert 0 == look(python=bare, env=stocked).exit


def test_sigterm_while_pip_runs_ends_both_within_a_second_and_leaves_nothing(
        bare, begin, offline, cache, service, silent_index):
    service.on_file(drip(page(html="x" * 9000), 1, 0.05))  # it notices that nobody is there
    busy = begin(python=bare, env={**offline, "PIP_INDEX_URL": silent_index})
    read = service.wait_for("file", timeout=20)
    began = time.monotonic()
    busy.send_signal(signal.SIGTERM)
    done = busy.finish()
    assert (143, "terminated") == (done.exit, done.json["error"]["code"]), done
    assert 1 > time.monotonic() - began
    time.sleep(0.3)
    sent = read.sent
    time.sleep(0.3)
    assert sent == read.sent, "pip is still there"
    assert [] == list(cache.iterdir())


# --- no home, somebody else's folders

@pytest.mark.parametrize("home", ["/", "/nowhere/at/all", "~"])
def test_without_a_home_the_copy_lies_in_a_folder_of_this_user_in_the_temporary_one(home, bare, tmp_path, look, stocked):
    env = {**stocked, "XDG_CACHE_HOME": None, "HOME": home}
    assert 0 == look(python=bare, env=env).exit
    [made] = (tmp_path / "tmp").iterdir()
    assert (f"image2-{os.getuid()}", 0o700) == (made.name, made.stat().st_mode & 0o777)
    again = look(python=bare, env=env)
    assert (0, 0) == (again.exit, again.stderr.count(SAID)), again
    assert [] == list(tmp_path.rglob("~*"))
    assert not Path("/nowhere").exists()


@pytest.mark.parametrize("fault", ["a link", "writable", *THEIRS])
def test_a_temporary_folder_that_is_not_this_users_alone_is_not_used(fault, bare, tmp_path, look, stocked):
    env, mine = {**stocked, "XDG_CACHE_HOME": None, "HOME": "/"}, tmp_path / "tmp" / f"image2-{os.getuid()}"
    (tmp_path / "theirs").mkdir()
    if fault == "a link":
        mine.symlink_to(tmp_path / "theirs")
    else:
        mine.mkdir()
        mine.chmod(0o777) if fault == "writable" else os.chown(mine, 54321, 54321)
    refused(look(python=bare, env=env), "this user's alone", "XDG_CACHE_HOME")
    assert [] == [*(tmp_path / "theirs").iterdir(), *(mine.iterdir() if mine.is_dir() else [])]


# --- pip as companies and containers preset it

def test_what_is_preset_for_other_installs_is_set_aside_and_the_index_kept(bare, tmp_path, look, offline, wheels):
    (tmp_path / "constraints.txt").write_text("requests==2.20.0\n")
    (tmp_path / "pip.conf").write_text(
        f"[global]\nuser = true\nquiet = 2\nindex-url = http://127.0.0.1:1/simple\nconstraint = {tmp_path}/constraints.txt\n"
        f"[install]\nno-deps = true\nrequire-hashes = true\nprefix = {tmp_path}/prefix\nno-index = true\n"
        f"find-links =\n    file:///nowhere\n    {wheels}\n")
    presets = {"PIP_CONSTRAINT": tmp_path / "constraints.txt", "PIP_REQUIRE_VIRTUALENV": "1", "PIP_NO_BINARY": ":all:",
               **{f"PIP_{name.upper()}": tmp_path / name for name in ("prefix", "root", "target", "report")}}
    done = look(python=bare, env={**offline, **presets, "PIP_CONFIG_FILE": tmp_path / "pip.conf", "PIP_INDEX_URL": None})
    assert 0 == done.exit, done
    assert [] == [name for name in ("prefix", "root", "target", "report") if (tmp_path / name).exists()]


def test_index_proxy_and_certificates_reach_pip_and_the_key_does_not(tmp_path, bare, look, offline):
    """A pip of our own, on PYTHONPATH, that writes down what it sees."""
    pip = tmp_path / "path" / "pip"
    pip.mkdir(parents=True)
    pip.joinpath("__init__.py").touch()
    pip.joinpath("__main__.py").write_text(
        "import os, sys\n"
        "if 'list' in sys.argv:\n"
        "    print(\"global.proxy='http://proxy:1'\\nglobal.cert='/ca.pem'\\nglobal.target='/x'\\ninstall.no-deps='1'\")\n"
        "seen = [name for name, value in sorted(os.environ.items()) if name.startswith('PIP_') or "
        f"{running.CANARY!r} in value]\n"
        "open(os.environ['SEEN'], 'w').write(' '.join(seen))\n")
    look(python=bare, env={**offline, "PYTHONPATH": pip.parent, "SEEN": tmp_path / "seen", "PIP_TARGET": "/x"})
    assert "PIP_CERT PIP_CONFIG_FILE PIP_INDEX_URL PIP_PROXY" == (tmp_path / "seen").read_text()


def test_a_conflict_of_versions_is_called_that_and_an_index_without_them_was_reached(bare, tmp_path, look, stocked):
    index = tmp_path / "index"
    index.mkdir()
    env = {**stocked, "PIP_FIND_LINKS": index}
    empty = look(python=bare, env=env)
    refused(empty, "pip could not fetch them: ERROR: Could not find a version", "Install requests and python-dotenv")
    (index / "requests-2.20.0-py3-none-any.whl").touch()
    refused(look(python=bare, env=env), "a conflict of versions")
    assert "cannot be reached" not in empty.json["error"]["message"]
    assert empty.json["next"] is None


# --- uv


@needs_uv
def test_where_uv_is_the_run_goes_on_in_its_interpreter_and_no_project_names_its_index(
        bare, tmp_path, look, stocked, cache, beside_uv):
    script = shutil.copytree(running.SCRIPT.parent, tmp_path / "skill") / running.SCRIPT.name
    (tmp_path / "uv.toml").write_text("this would stop uv, so it was not read")
    done = look(python=bare, script=script, env={**stocked, "PATH": beside_uv})
    assert (0, 0) == (done.exit, done.stderr.count(SAID)), done
    assert not cache.exists()


def test_uv_is_asked_once(bare, tmp_path, look, stocked, cache):
    """A uv that names an interpreter without the packages must not send the run round in circles."""
    program(tmp_path / "bin" / "uv", f"echo asked $IMAGE2_API_KEY >> {tmp_path}/log", f"echo {bare}")
    done = look(python=bare, env={**stocked, "PATH": f"{tmp_path}/bin:{SYSTEM_PATH}"})
    assert (0, 1) == (done.exit, done.stderr.count(SAID)), done
    assert "asked\n" == (tmp_path / "log").read_text()


def test_no_program_of_the_working_folder_is_started(bare, tmp_path, look, stocked):
    for folder in (tmp_path, tmp_path / "bin"):
        for name in ("uv", "python3", "pip", "python3.13"):
            program(folder / name, f"echo $0 $IMAGE2_API_KEY >> {tmp_path}/stolen", f"echo {bare}")
    done = look(python=bare, env={**stocked, "PATH": f":bin:{tmp_path}:{SYSTEM_PATH}"})
    assert 0 == done.exit, done
    assert not (tmp_path / "stolen").exists()


# --- what cannot be

def test_no_install_forbids_all_but_next(bare, look, stocked, offline, cache):
    done = look(python=bare, env={**stocked, "IMAGE2_NO_INSTALL": "1"})
    refused(done, "IMAGE2_NO_INSTALL", "missing here: requests, urllib3, python-dotenv", "Install requests and", str(bare))
    assert not cache.exists()


@needs_uv
def test_no_install_forbids_uv_too_but_names_it(bare, look, stocked, tmp_path, beside_uv):
    env = {**stocked, "PATH": beside_uv, "IMAGE2_NO_INSTALL": "1"}
    done = look("check", python=bare, env=env)
    refused(done)
    assert f"uv run {running.SCRIPT} check" == done.json["next"]
    assert not (tmp_path / "uv").exists()


@pytest.mark.parametrize(("version", "is_fit"), [
    ("2.9.2", False), ("2.32", True), ("2.99.0+local", True), ("3.0.0rc1", False)])
def test_versions_within_the_ranges_are_used_as_they_are_and_no_others(version, is_fit, tmp_path, monkeypatch):
    (tmp_path / f"requests-{version}.dist-info").mkdir()
    (tmp_path / f"requests-{version}.dist-info" / "METADATA").write_text(f"Name: requests\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    unfit = f"requests {version} is here, 2.32 or newer and below 3 is needed"
    assert ([] if is_fit else [unfit]) == packages.shortcomings(str(running.SCRIPT))


def test_a_private_copy_stands_before_versions_that_do_not_fit(bare, look, stocked, tmp_path):
    path = tmp_path / "path"
    for name, content in [("requests/__init__.py", ""), ("requests-3.1.dist-info/METADATA", "Version: 3.1\n")]:
        path.joinpath(name).parent.mkdir(parents=True)
        path.joinpath(name).write_text(content)
    assert 0 == look(python=bare, env={**stocked, "PYTHONPATH": path}).exit


def test_without_a_network_the_answer_comes_at_once_and_names_a_sandbox_that_shuts_it_off(bare, look, offline):
    done = look("check", python=bare, env={**offline, "CODEX_SANDBOX_NETWORK_DISABLED": "1"})
    refused(done, "the package index cannot be reached", "Codex's sandbox may forbid it")
    assert f"{bare} {running.SCRIPT} check" == done.json["next"]
    assert 10 > done.seconds


@needs_uv
def test_where_nobody_answers_the_answer_comes_within_ten_seconds(bare, look, offline, beside_uv, service, silent_index):
    env = {**offline, "PATH": beside_uv, "PIP_INDEX_URL": silent_index, "UV_DEFAULT_INDEX": silent_index}
    done = look(python=bare, env=env)
    refused(done, "uv could not help: the package index cannot be reached", "pip could not fetch them")
    assert service.files and 10 > done.seconds


# --- how the script is started again

def test_the_script_is_started_again_by_a_bare_word_where_that_is_this_interpreter(tmp_path, bare, launcher):
    folder, here = os.path.dirname(bare), str(bare)
    assert launcher(here, PATH=folder) in ("python3", "python")
    assert launcher(here, "-I", PATH=folder) in ("python3 -I", "python -I")
    assert here == launcher(here, PATH=SYSTEM_PATH)
    program(tmp_path / "python3", "exit 1")
    assert here == launcher(here, PATH=str(tmp_path)), "another python3 is not this one"
    assert "uv run" == launcher(here, PATH=SYSTEM_PATH, IMAGE2_LAUNCHER="uv run")


def test_on_windows_the_stores_stub_is_not_taken_for_python(tmp_path, monkeypatch):
    for name in ("python", "py"):
        program(tmp_path / name, "exit 49")
    environment = {"PATH": str(tmp_path)}
    assert ["py", "-3"] == packages.launcher(environment, "nt")
    (tmp_path / "py").unlink()
    assert [sys.executable] == packages.launcher(environment, "nt")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert ["python"] == packages.launcher(environment, "nt")


@needs_uv
def test_what_uv_run_began_is_continued_by_uv_run(launcher, stocked, beside_uv):
    assert "uv run" == launcher(UV, "run", **{**stocked, "PATH": beside_uv})
