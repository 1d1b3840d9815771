"""scripts/image2.py by itself: an old Python, a skill that was not copied whole."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

import pytest
import running
from platforms import needs_posix

pytestmark = pytest.mark.slow
REINSTALL = "npx skills@1.7.1 add ichizi/image2-skills -y"


def pythons(minor: int) -> list[str]:
    """Those that work: a shim of pyenv may stand for nothing."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = [*glob.glob(f"{root}/versions/3.{minor}.*/bin/python"), *filter(None, [shutil.which(f"python3.{minor}")])]
    return [path for path in found if not subprocess.run([path, "-c", ""], capture_output=True).returncode]


OLD = [path for minor in (6, 7, 8) for path in pythons(minor)[:1]]


def refused(done, *words) -> str | None:
    """The `next` of a run that ended with missing_dependency and a message that says all these words."""
    assert (2, "missing_dependency") == (done.exit, done.json["error"]["code"]), done
    assert ["no", [], ""] == [done.json["charged"], done.json["images"], done.stderr]
    message = done.json["error"]["message"]
    assert [] == [word for word in words if word not in message], message
    return done.json["next"]


def program(path, text: str):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# --- an old Python

@needs_posix
@pytest.mark.parametrize("python", OLD or [pytest.param("", marks=pytest.mark.skip("there is no Python older than 3.9"))])
def test_an_old_python_names_a_newer_one_that_works(python, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder / "python3.14", "exit 127")  # as a shim that stands for nothing
    newer = program(folder / "python3.13", f"echo $IMAGE2_API_KEY >> {tmp_path}/seen")
    program(tmp_path / "python3.12", f"echo stolen >> {tmp_path}/seen")  # of the working folder
    options = {"python": python, "cwd": tmp_path, "env": {"PATH": f".::{folder}"}}
    done = running.run("generate", running.CANARY, "--out", "x", **options)
    assert refused(done, "This is Python 3.", "3.9 or newer is needed", f"this command again with {newer}.") is None
    assert "\n" == (tmp_path / "seen").read_text()  # neither the key nor the other one
    newer.rename(folder / "uv")
    refused(running.run("check", **options), f"this command again with {folder}/uv run.")
    (folder / "uv").unlink()
    refused(running.run("check", **options), "newer one", "install uv")


# --- a skill that was not copied whole

@pytest.mark.parametrize("python", [sys.executable, *OLD[:1]])
def test_an_entry_that_was_copied_alone_says_so(python, tmp_path):
    done = running.run("check", script=shutil.copy(running.SCRIPT, tmp_path), python=python)
    if python == sys.executable:
        assert REINSTALL == refused(done, "image2_cli", REINSTALL, "git clone")
    else:
        refused(done)


@pytest.mark.parametrize("lost", ["main.py", "cli", "service/api.py"])
def test_a_folder_that_misses_a_part_says_so(lost, tmp_path):
    script = shutil.copytree(running.SCRIPT.parent, tmp_path / "scripts") / "image2.py"
    path = script.parent / "image2_cli" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = running.run("status", "t-1", script=script, cwd=tmp_path)
    assert REINSTALL == refused(done, lost.partition("/")[0].replace(".py", ""), REINSTALL)


# --- what every start costs

def test_a_start_without_a_key_loads_no_package(tmp_path):
    packages = {"requests", "urllib3", "dotenv", "importlib.metadata"}
    for words in (("--help",), ("wait", "t-1"), ("generate", "a cat")):
        command = [sys.executable, "-X", "importtime", str(running.SCRIPT), *words]
        environment = running.whole({"HOME": str(tmp_path)})
        said = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True).stderr
        loaded = {line.rpartition("|")[2].strip() for line in said.splitlines()}
        assert ("image2_cli.main" in loaded, set()) == (True, loaded & packages)
