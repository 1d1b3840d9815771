"""The examples of the pages, taken out of them and run against the stand-in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
import running
from image2_cli.pictures import image_check
from image2_cli.sandbox.server import KEY, Sandbox
from pages import API, PROMPTS, README, SKILL

pytestmark = pytest.mark.slow
SERVICE = "https://image2.vip"
ENDING = {"bash": "sh", "python": "py", "javascript": "mjs"}
EXAMPLES = [(language, number) for language in ENDING for number in range(max(1, len(pages.blocks(API, language))))]


@pytest.fixture
def stand_in() -> Iterator[Sandbox]:
    with Sandbox(seconds=0.3) as sandbox:
        yield sandbox


def _program(language: str) -> str:
    """What runs an example, or a skip that says what is not there."""
    if language == "python":
        return sys.executable
    name = {"bash": "bash", "javascript": "node"}[language]
    path = shutil.which(name)
    if not path or (language == "bash" and (os.name == "nt" or not shutil.which("curl"))):
        pytest.skip(f"{name} or curl is not installed")
    if language == "javascript":
        version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        if int(version[1:].partition(".")[0]) < 18:
            pytest.skip(f"node {version.strip()} is older than the example asks for")
    return path


def _run_example(language: str, number: int, folder: Path, base_url: str) -> subprocess.CompletedProcess[str]:
    code = pages.blocks(API, language)[number]
    assert SERVICE in code
    if "import OpenAI" in code:
        pytest.importorskip("openai", reason="the OpenAI SDK is not installed: pip install openai")
    file = folder / f"example.{ENDING[language]}"
    file.write_text(code.replace(SERVICE, base_url), encoding="utf-8")
    environment = running.whole({"PATH": os.environ["PATH"], "HOME": str(folder), "IMAGE2_API_KEY": KEY})
    return subprocess.run([_program(language), str(file)], cwd=folder, env=environment, capture_output=True,
                          text=True, timeout=60)


def _pictures(folder: Path) -> list[str]:
    """The files that are whole pictures, by name."""
    files = sorted(path for path in folder.iterdir() if path.suffix == ".png")
    for path in files:
        with path.open("rb") as file:
            image_check.inspect(file)
    return [path.name for path in files]


# --- api.md


@pytest.mark.parametrize("language, number", EXAMPLES)
def test_an_example_runs_and_orders_once(language: str, number: int, tmp_path: Path, stand_in: Sandbox) -> None:
    done = _run_example(language, number, tmp_path, stand_in.base_url)
    assert 0 == done.returncode, done
    assert 1 == stand_in.orders
    if "cat" not in done.stdout and not _pictures(tmp_path):
        assert json.loads(done.stdout)["data"][0]["url"]
    if ".png" in pages.blocks(API, language)[number]:
        assert stand_in.images == len(_pictures(tmp_path))


def test_the_answers_shown_have_the_members_that_the_stand_in_sends(stand_in: Sandbox) -> None:
    import requests

    shown = [json.loads(block) for block in pages.blocks(API, "json")]
    url, auth = stand_in.base_url + "/api/v1/images", {"Authorization": "Bearer " + KEY}
    order = {"model": "gpt-image-2", "prompt": "a cat"}
    sync, accepted = (requests.post(url + "/generations", json={**order, "async": later}, headers=auth, timeout=10).json()
                      for later in (False, True))
    task = accepted
    while task["status"] != "completed":
        task = requests.get(f"{url}/tasks/{accepted['task_id']}", headers=auth, timeout=10).json()
    members = [(set(one), set(one["data"][0])) for one in (*shown, sync, accepted, task)]
    assert members[:3] == members[3:]


# --- commands


def _run_command(words: list[str], folder: Path, stand_in: Sandbox) -> None:
    quick = ["--poll-interval", "0.1"] if words[0] in ("generate", "batch", "wait") else []
    done = running.run(*words, *quick, cwd=folder, base_url=stand_in.base_url, key=KEY)
    assert 0 == done.exit, done


def test_the_commands_of_the_skill_work_one_after_the_other(project: Path, stand_in: Sandbox) -> None:
    """In an empty folder, as an agent would run them; the batch file is the line that the page shows."""
    cells = "\n".join(row[1] for row in pages.table(SKILL, "the user wants"))
    (line,) = re.findall(r'`(\{"prompt".*?\})`', cells)
    (project / "orders.jsonl").write_text(line, encoding="utf-8")
    commands = pages.commands(SKILL)
    for words in commands:
        if "TASK_ID" in words:
            words[words.index("TASK_ID")] = running.run("status", cwd=project, key=None).json["orders"][0]["task_id"]
        _run_command([word.replace("FOLDER", ".") for word in words], project, stand_in)
    assert len(commands) >= 8
    assert (project / "icons" / "home.png").is_file()
    assert {"fox.png", "fox-2.png", "fox-dusk.png"} <= set(_pictures(project))


def test_the_commands_of_the_prompting_page_work_one_after_the_other(project: Path, stand_in: Sandbox) -> None:
    commands = [words for words in pages.commands(PROMPTS) if words[0] == "generate"]
    for words in commands:
        _run_command(words, project, stand_in)
        assert words[words.index("--out") + 1] in _pictures(project)
    assert len(commands) == stand_in.orders


def test_the_readmes_first_command_ends_with_a_picture_and_without_a_key(project: Path) -> None:
    (words, *_) = [words for words in pages.commands(README) if "--sandbox" in words]
    done = running.run(*words, cwd=project, key=None)
    assert (0, True, "no") == (done.exit, done.json["sandbox"], done.json["charged"]), done
    assert 1 == len(_pictures(project / "image2-output"))


def test_the_served_sandbox_tells_what_to_export(project: Path) -> None:
    with running.start("sandbox", "--port", "0", cwd=project, key=None) as serving:
        export = json.loads(serving.stdout.readline())["export"]
        done = running.run("check", cwd=project, key=export["IMAGE2_API_KEY"], base_url=export["IMAGE2_BASE_URL"])
        serving.terminate()
    assert 0 == done.exit, done
