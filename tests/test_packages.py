"""The first command on a bare machine: real interpreters without packages, real pip, real uv."""

import glob
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

import faulty
import pytest
import running
from image2_cli.machine import fetching, packages
from laws import FAST
from platforms import needs_linux, needs_posix

pytestmark = [needs_posix, pytest.mark.xdist_group("one download of the wheels is enough")]  # bin/python, uv as a script

SYSTEM_PATH = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
UV = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
needs_uv = pytest.mark.skipif(not UV, reason="there is no uv on this machine")
# What this machine needs to reach PyPI; everything else of the developer's environment stays out.
MACHINE = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "CERT" in name
           or "CA_BUNDLE" in name or name.lower().endswith("_proxy")}
SAID = "first run: fetching requests and python-dotenv into"


def _bare(folder: Path, pip: bool = True) -> Path:
    """An interpreter of its own without a package; `pip`: with the developer's pip in it, for ensurepip takes 3 s."""
    venv.create(folder, with_pip=False, symlinks=sys.platform == "darwin")  # a copy does not find its framework there
    packages_folder = next(folder.glob("lib/*/site-packages"))
    if pip:
        pip_folder = Path(importlib.util.find_spec("pip").origin).parent
        shutil.copytree(pip_folder, packages_folder / "pip")
    if running.COVERAGE in os.environ:  # these interpreters are to be counted too; coverage alone, no other package
        (packages_folder / "coverage").symlink_to(Path(importlib.util.find_spec("coverage").origin).parent)
        (packages_folder / "coverage.pth").write_text("import coverage; coverage.process_startup()\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    return _bare(tmp_path_factory.mktemp("bare") / "venv")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """The wheels themselves, fetched from PyPI once; with them every other making needs no network."""
    folder = tmp_path_factory.mktemp("wheels")
    done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "-d", folder,
                           *packages.requirements(str(running.SCRIPT))],
                          env={**os.environ, **MACHINE}, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("PyPI cannot be reached: " + done.stderr[-200:])
    return folder


@pytest.fixture
def cache(tmp_path):
    return (tmp_path / "Library" / "Caches" if sys.platform == "darwin" else tmp_path / "cache") / "image2"


@pytest.fixture
def offline(tmp_path):
    """An environment in which neither pip nor uv reaches anything, and nobody's home is touched."""
    with faulty.closed_port() as nowhere:
        yield {"PATH": SYSTEM_PATH, "HOME": tmp_path, "XDG_CACHE_HOME": tmp_path / "cache",
               "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": nowhere,
               "UV_CACHE_DIR": tmp_path / "uv", "UV_DEFAULT_INDEX": nowhere, "UV_PYTHON_DOWNLOADS": "never"}


@pytest.fixture
def stocked(offline, wheels):
    """The same with the wheels at hand: what a living network gives, without the network."""
    return {**offline, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels, "UV_OFFLINE": "1", "UV_FIND_LINKS": wheels,
            "UV_PYTHON": f"3.{sys.version_info.minor}"}     # for which the wheels are


@pytest.fixture
def begin(service, tmp_path):
    """Begin the cheapest verb that needs the network: one look at a task of `service`."""
    def bound(**options):
        return running.start("status", "t-1", base_url=service.base_url, cwd=tmp_path, **options)
    return bound


@pytest.fixture
def look(begin):
    return lambda **options: begin(**options).finish()


@pytest.fixture
def beside_uv(tmp_path):
    """A PATH on which uv is found, and the interpreter of these tests for it."""
    folder = tmp_path / "uv-bin"
    folder.mkdir()
    (folder / "uv").symlink_to(UV)
    return os.pathsep.join([str(folder), os.path.join(sys.base_prefix, "bin"), SYSTEM_PATH])


class BlackHole:
    """An index that takes every connection and never answers. `reached`: somebody asked; `left`: that one hung up."""

    def __init__(self):
        self.reached, self.left, self._kept = threading.Event(), threading.Event(), []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/simple"
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self):
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self._kept.append(connection)
            self.reached.set()
            threading.Thread(target=self._wait, args=(connection,), daemon=True).start()

    def _wait(self, connection):
        try:
            while connection.recv(65536):
                pass
        except OSError:
            pass
        self.left.set()

    def close(self):
        for connection in [self._listener, *self._kept]:
            connection.close()


@pytest.fixture
def black_hole():
    hole = BlackHole()
    yield hole
    hole.close()


@pytest.fixture(scope="session")
def old_python():
    """A Python 3.8 that runs, or a skip."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for found in [*glob.glob(f"{pyenv}/versions/3.8*/bin/python"), shutil.which("python3.8")]:
        if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode:
            return found
    return pytest.skip("there is no Python 3.8 on this machine")


def _refused(done, *words):
    """A run that ended with missing_dependency and a message that says all these words."""
    assert (2, "missing_dependency") == (done.exit, done.json["error"]["code"]), done
    message = done.json["error"]["message"]
    assert [] == [word for word in words if word not in message], message


# A private copy

def test_a_bare_interpreter_fetches_the_packages_once_and_by_no_pip_of_the_project(
        bare, tmp_path, look, stocked, offline, cache):
    """The working folder is the project's; `-m` looks there first."""
    (tmp_path / "pip.py").write_text("open('stolen', 'w')")
    first = look(python=bare, env=stocked)
    assert (0, 1) == (first.exit, first.stderr.count(SAID)), first
    [made] = cache.iterdir()
    again = look(python=bare, env=offline)      # pip could not work now
    assert (0, 0) == (again.exit, again.stderr.count(SAID)), again
    assert [made] == list(cache.iterdir())
    assert [] == list(tmp_path.rglob("stolen"))


def test_an_interpreter_without_pip_gets_it_from_a_venv(tmp_path, look, stocked, cache):
    done = look(python=_bare(tmp_path / "no-pip", pip=False), env=stocked)
    assert 0 == done.exit, done
    assert 1 == len(list(cache.iterdir()))


def test_the_isolated_modes_find_the_private_copy_also_through_a_link(bare, tmp_path, look, stocked):
    link = tmp_path / "elsewhere.py"
    link.symlink_to(running.SCRIPT)
    for flag in ("-I", "-P") if sys.version_info >= (3, 11) else ("-I",):
        assert 0 == look(python=bare, env=stocked, script=link, flags=(flag,)).exit


@pytest.mark.parametrize("lost", ["requests/sessions.py", "requests"])
def test_a_broken_private_copy_is_made_anew(lost, bare, look, stocked, cache):
    assert 0 == look(python=bare, env=stocked).exit
    path = next(cache.iterdir()) / lost
    shutil.rmtree(path) if path.is_dir() else path.write_bytes(b"")     # as after a power cut
    mended = look(python=bare, env=stocked)
    assert (0, 1) == (mended.exit, mended.stderr.count(SAID)), mended
    assert [True] == [folder.joinpath(lost).exists() for folder in cache.iterdir()]


def test_two_first_runs_at_once_both_end_well(bare, begin, stocked, cache):
    both = [begin(python=bare, env=stocked) for _ in range(2)]
    assert [0, 0] == [each.finish().exit for each in both]
    assert 1 == len(list(cache.iterdir()))


def test_a_first_run_killed_while_pip_runs_leaves_no_half_copy(bare, begin, look, stocked, offline, cache, black_hole):
    killed = begin(python=bare, env={**offline, "PIP_INDEX_URL": black_hole.url})
    assert black_hole.reached.wait(10)
    killed.kill()
    killed.finish()
    [leftover] = cache.iterdir()
    os.utime(leftover, (0, time.time() - 2 * fetching.LEFTOVER_S))
    assert 0 == look(python=bare, env=stocked).exit
    assert not leftover.exists()
    assert 1 == len(list(cache.iterdir()))


def test_sigterm_while_pip_runs_ends_both_within_a_second(bare, begin, offline, cache, black_hole):
    busy = begin(python=bare, env={**offline, "PIP_INDEX_URL": black_hole.url})
    assert black_hole.reached.wait(10)
    sent = time.monotonic()
    busy.send_signal(signal.SIGTERM)
    done = busy.finish()
    assert (143, "terminated") == (done.exit, done.json["error"]["code"]), done
    assert 1 > time.monotonic() - sent
    assert black_hole.left.wait(1), "pip is still there"
    assert [] == list(cache.iterdir())


def test_pip_does_not_get_the_key(tmp_path, bare, look, offline):
    """A pip of our own, on PYTHONPATH, that writes down which variables hold the key."""
    pip = tmp_path / "path" / "pip"
    pip.mkdir(parents=True)
    pip.joinpath("__init__.py").touch()
    pip.joinpath("__main__.py").write_text(
        "import os\n"
        f"names = [name for name, value in os.environ.items() if {running.CANARY!r} in value]\n"
        "open(os.environ['SEEN'], 'w').write('the key is in %s' % names)\n")
    look(python=bare, env={**offline, "PYTHONPATH": pip.parent, "SEEN": tmp_path / "seen"})
    assert "the key is in []" == (tmp_path / "seen").read_text()


def test_a_prompt_with_the_key_of_the_file_is_refused_on_a_bare_machine_too(bare, tmp_path, offline):
    (tmp_path / ("." + "env")).write_text("IMAGE2_API_KEY=" + running.CANARY)
    done = running.run("generate", running.CANARY, python=bare, env=offline, key=None, cwd=tmp_path)
    assert "usage" == done.json["status"]


# uv

def test_what_uv_is_asked_is_answered_with_an_interpreter_or_with_what_it_lacks(bare, look):
    """A uv that is configured oddly may name an interpreter without the packages."""
    asked = {"IMAGE2_UV": "ask"}
    assert sys.executable + "\n" == look(env=asked).stdout
    lacking = look(python=bare, env=asked)
    assert (1, "", "missing here: requests, urllib3, python-dotenv\n") == (lacking.exit, lacking.stdout, lacking.stderr)


@needs_uv
def test_where_uv_fails_a_private_copy_is_made(bare, look, stocked, cache, beside_uv):
    done = look(python=bare, env={**stocked, "PATH": beside_uv, "UV_CACHE_DIR": "/proc/nowhere"})
    assert (0, 1) == (done.exit, done.stderr.count(SAID)), done


@needs_uv
def test_where_uv_is_the_run_goes_on_in_its_interpreter_and_no_project_names_its_index(
        bare, tmp_path, look, stocked, cache, beside_uv):
    """uv looks for it in the working folder and upwards from the script, which may be installed in the project."""
    script = shutil.copytree(running.SCRIPT.parent, tmp_path / "skill") / running.SCRIPT.name
    (tmp_path / "uv.toml").write_text("this would stop uv, so it was not read")
    done = look(python=bare, script=script, env={**stocked, "PATH": beside_uv})
    assert (0, 0) == (done.exit, done.stderr.count(SAID)), done
    assert not cache.exists()


def test_uv_is_asked_once(bare, tmp_path, look, stocked, cache):
    """A uv that names an interpreter without the packages must not send the run round in circles."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(f"#!/bin/sh\necho asked >> {tmp_path}/log\necho {bare}\n")
    (tmp_path / "bin" / "uv").chmod(0o755)
    done = look(python=bare, env={**stocked, "PATH": f"{tmp_path}/bin:{SYSTEM_PATH}"})
    assert (0, 1) == (done.exit, done.stderr.count(SAID)), done
    assert "asked\n" == (tmp_path / "log").read_text()


@needs_uv
def test_uv_brings_a_newer_python_to_an_old_one(old_python, look, stocked, beside_uv):
    assert 0 == look(python=old_python, env={**stocked, "PATH": beside_uv}).exit


# What cannot be

def test_an_old_python_is_named_and_nothing_is_put_into_it(old_python, look, stocked, cache, tmp_path):
    newer = tmp_path / "bin"
    newer.mkdir()
    (newer / "python3.14").write_text("#!/bin/sh\nexit 127\n")      # as a shim that stands for nothing
    (newer / "python3.14").chmod(0o755)
    (newer / "python3.13").symlink_to(sys.executable)
    done = look(python=old_python, env={**stocked, "PATH": newer})
    _refused(done, "this is Python 3.8.", "3.10 or newer is needed")
    assert f"cd {tmp_path} && python3.13 {running.SCRIPT} status t-1" == done.json["next"]
    assert not cache.exists()


def test_no_install_forbids_everything_but_next(tmp_path, look, stocked, offline, cache):
    bare = _bare(tmp_path / "venv")
    done = look(python=bare, env={**stocked, "IMAGE2_NO_INSTALL": "1"})
    _refused(done, "IMAGE2_NO_INSTALL", "missing here: requests, urllib3, python-dotenv", "then this command again")
    assert not cache.exists()
    subprocess.run(["sh", "-c", done.json["next"]], env={**os.environ, **stocked}, check=True, capture_output=True)
    assert 0 == look(python=bare, env={**offline, "IMAGE2_NO_INSTALL": "1"}).exit


@needs_uv
def test_no_install_forbids_uv_too_but_names_it(bare, look, stocked, tmp_path, beside_uv):
    env = {**stocked, "PATH": beside_uv, "IMAGE2_NO_INSTALL": "1"}
    done = look(python=bare, env=env)
    _refused(done)
    assert f"cd {tmp_path} && uv run {running.SCRIPT} status t-1" == done.json["next"]
    os.mkfifo(tmp_path / "pipe")
    done = running.run("generate", "--prompt-file=pipe", python=bare, env=env, cwd=tmp_path)
    _refused(done, "this command again with uv run")
    assert done.json["next"] is None
    assert not (tmp_path / "uv").exists()


def test_an_older_requests_is_named(bare, look, offline, stocked, tmp_path):
    path = tmp_path / "path"
    for name, content in [("requests/__init__.py", ""), ("requests-2.9.2.dist-info/METADATA", "Version: 2.9.2\n")]:
        path.joinpath(name).parent.mkdir(parents=True)
        path.joinpath(name).write_text(content)
    _refused(look(python=bare, env={**offline, "PYTHONPATH": path, "IMAGE2_NO_INSTALL": "1"}),
             "requests 2.9.2 is here, 2.33.0 or newer is needed", "missing here: urllib3, python-dotenv")
    assert 0 == look(python=bare, env={**stocked, "PYTHONPATH": path}).exit      # the private copy comes first


def test_without_a_network_the_answer_comes_at_once_and_names_a_sandbox_that_shuts_it_off(bare, look, offline):
    done = look(python=bare, env={**offline, "CODEX_SANDBOX_NETWORK_DISABLED": "1"})
    _refused(done, "the package index cannot be reached", "Codex's sandbox may forbid it")
    assert "-m pip install" in done.json["next"]
    assert 10 > done.seconds


@needs_uv
def test_where_nobody_answers_the_answer_comes_within_ten_seconds(bare, look, offline, beside_uv, black_hole):
    done = look(python=bare, env={**offline, "PATH": beside_uv, "PIP_INDEX_URL": black_hole.url,
                                  "UV_DEFAULT_INDEX": black_hole.url})
    _refused(done, "uv could not help: the package index cannot be reached", "pip could not fetch them")
    assert black_hole.reached.is_set()
    assert 10 > done.seconds


def test_a_cache_that_cannot_be_written_is_named(bare, look, stocked, cache):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.touch()
    _refused(look(python=bare, env=stocked), str(cache.parent), "Not a directory")


@pytest.fixture
def debian(tmp_path):
    """The same interpreter as Debian installs it; `without`: what is not in its library."""
    def build(*without):
        library = f"lib/python3.{sys.version_info.minor}"
        (tmp_path / "debian" / library).mkdir(parents=True)
        (tmp_path / "debian" / "bin").mkdir()
        for entry in Path(sys.base_prefix, library).iterdir():
            if entry.name not in ("site-packages", *without):
                (tmp_path / "debian" / library / entry.name).symlink_to(entry)
        (tmp_path / "debian" / library / "EXTERNALLY-MANAGED").touch()
        shutil.copytree(Path(importlib.util.find_spec("pip").origin).parent, tmp_path / "debian" / library / "pip")
        python = tmp_path / "debian" / "bin" / "python3"
        return shutil.copy(os.path.realpath(sys.executable), python)

    return build


@needs_linux
def test_without_pip_and_venv_the_system_package_is_named(tmp_path, look, stocked, debian):
    python = debian("ensurepip")
    shutil.rmtree(python.parent.parent / f"lib/python3.{sys.version_info.minor}/pip")
    done = look(python=python, env=stocked)
    _refused(done, "no pip, and no venv", "apt install python3-pip")
    assert done.json["next"] is None


@needs_linux
def test_next_leaves_the_packages_of_the_system_alone(service, tmp_path, stocked, debian):
    """PEP 668: its pip refuses, so the command makes a venv of the user's own and goes on there."""
    (tmp_path / "python3").symlink_to("/bin/false")     # as a 3.8 would
    env = {**stocked, "PATH": f"{tmp_path}:{SYSTEM_PATH}", "IMAGE2_NO_INSTALL": "1", "IMAGE2_BASE_URL": service.base_url}
    options = {"python": debian(), "env": env, "cwd": tmp_path}
    piped = running.run("generate", "--prompt-file", "-", stdin="a cat", **options)
    _refused(piped, "this command again with ")     # whose stdin `next` has not
    todo = running.run("generate", "a cat", "--out", "pics", *FAST, **options).json["next"]
    assert piped.json["next"] == todo.partition(" && cd ")[0]
    again = subprocess.run(["sh", "-c", todo], env={**env, "IMAGE2_API_KEY": running.CANARY}, cwd="/")
    assert (0, 1) == (again.returncode, len(list(tmp_path.glob("pics/*.png"))))


# What every run pays, and what it says

def test_the_look_at_the_packages_imports_none_of_them():
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from image2_cli.machine.packages import shortcomings\n"
            "print(shortcomings(sys.argv[2]), [m for m in ('requests', 'urllib3', 'dotenv') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, running.SCRIPT.parent, running.SCRIPT],
                          capture_output=True, text=True)
    assert "[] []\n" == done.stdout, done


def test_the_ranges_stand_in_the_entry():
    expected = {"python": "3.10", "requests": "2.33.0,<3", "urllib3": "2.7.0,<3", "python-dotenv": "1.2.2,<2"}
    assert expected == packages.ranges(str(running.SCRIPT))


@pytest.mark.parametrize(("version", "numbers"), [
    ("2.33", (2, 33, 0)), ("3.10.0", (3, 10, 0)), ("2.33.0rc1", (2, 33, 0)), ("2.34.2+local", (2, 34, 2)),
    ("2.33.0,<3", (2, 33, 0))])
def test_versions_compare_as_numbers(version, numbers):
    assert numbers == packages.numbers(version)


def _launcher(command: list, **env) -> str:
    """What `launcher()` says in a process started by `command`."""
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from image2_cli.machine.packages import launcher; print(*launcher())")
    done = subprocess.run([*command, "-c", code, str(running.SCRIPT.parent)], env=env, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_script_is_started_again_as_it_was_typed(tmp_path):
    path = os.path.dirname(sys.executable)
    name = os.path.basename(sys.executable)
    previous = os.environ["PATH"]
    os.environ["PATH"] = path       # where Popen looks for a bare name
    try:
        assert name == _launcher([name], PATH=path)
        assert f"{name} -I" == _launcher([name, "-I"], PATH=path)
    finally:
        os.environ["PATH"] = previous
    assert sys.executable == _launcher([sys.executable], PATH=path)
    assert "python3" == _launcher([sys.executable], PATH=path, IMAGE2_LAUNCHER="python3")
    assert sys.executable == _launcher([sys.executable], PATH=path, UV="uv", VIRTUAL_ENV=str(tmp_path))


@needs_uv
def test_what_uv_run_began_is_continued_by_uv_run(tmp_path, stocked, beside_uv):
    script = tmp_path / "asks.py"
    script.write_text("# /// script\n# dependencies = []\n# ///\n"
                      f"import sys\nsys.path.insert(0, {str(running.SCRIPT.parent)!r})\n"
                      "from image2_cli.machine.packages import launcher\nprint(*launcher())\n")
    done = subprocess.run([UV, "run", script], env={**{k: str(v) for k, v in stocked.items()}, "PATH": beside_uv},
                          capture_output=True, text=True)
    assert "uv run\n" == done.stdout, done


@pytest.mark.parametrize("kept", [(), ("__init__.py",)])
def test_an_entry_that_was_copied_alone_says_so(kept, tmp_path):
    alone = shutil.copy(running.SCRIPT, tmp_path)
    for name in kept:
        (tmp_path / "image2_cli").mkdir()
        shutil.copy(running.SCRIPT.parent / "image2_cli" / name, tmp_path / "image2_cli")
    done = running.run("check", script=alone)
    _refused(done, "npx skills add ichizi/image2-skills", "git clone")
    assert done.json["next"] == "npx skills add ichizi/image2-skills -y"


def test_an_entry_that_was_copied_alone_says_so_to_an_old_python_too(old_python, tmp_path):
    _refused(running.run("check", python=old_python, script=shutil.copy(running.SCRIPT, tmp_path)))
