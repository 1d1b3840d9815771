"""The examples of the pages, taken out of them and run against the stand-in."""

import json
import os
import re
import shutil
import subprocess
import sys

import pages
import pytest
import running
from image2_cli.pictures import image_check as raster
from image2_cli.sandbox.server import KEY, Sandbox
from pages import API, PROMPTS, README, SKILL

SERVICE = "https://image2.vip"
ENDING = {"bash": "sh", "python": "py", "javascript": "mjs"}
EXAMPLES = [(language, number) for language in ENDING for number in range(len(pages.blocks(API, language)))]


@pytest.fixture
def stand_in():
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
        if int(re.match(r"v(\d+)", version).group(1)) < 18:
            pytest.skip(f"node {version.strip()} is older than the example asks for")
    return path


def _run_example(language: str, number: int, folder, base_url: str, key: str = KEY) -> subprocess.CompletedProcess:
    code = pages.blocks(API, language)[number]
    assert SERVICE in code
    file = folder / f"example.{ENDING[language]}"
    file.write_text(code.replace(SERVICE, base_url), encoding="utf-8")
    environment = running.whole({"PATH": os.environ["PATH"], "HOME": str(folder), "IMAGE2_API_KEY": key})
    return subprocess.run([_program(language), str(file)], cwd=folder, env=environment, capture_output=True,
                          text=True, timeout=60)


def _pictures(folder) -> list[str]:
    """The files that are whole pictures, by name."""
    files = sorted(path for path in folder.iterdir() if path.suffix == ".png")
    for path in files:
        with path.open("rb") as file:
            raster.inspect(file)
    return [path.name for path in files]


# --- api.md

def test_the_api_page_has_examples_in_three_languages():
    assert {"bash", "python", "javascript"} == {language for language, _ in EXAMPLES}
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("language, number", EXAMPLES)
def test_an_example_runs_and_orders_once(language, number, tmp_path, stand_in):
    done = _run_example(language, number, tmp_path, stand_in.base_url)
    assert 0 == done.returncode, done
    assert 1 == stand_in.orders
    if "cat" not in done.stdout and not _pictures(tmp_path):
        assert json.loads(done.stdout)["data"][0]["url"]
    if ".png" in pages.blocks(API, language)[number]:
        assert stand_in.images == len(_pictures(tmp_path))


@pytest.mark.parametrize("language, number", EXAMPLES)
def test_an_example_whose_key_is_refused_ends_badly_and_writes_nothing(language, number, tmp_path, stand_in):
    done = _run_example(language, number, tmp_path, stand_in.base_url, key="short")
    assert 0 != done.returncode, done
    assert [] == _pictures(tmp_path)
    assert 0 == stand_in.orders


def test_the_answers_shown_have_the_members_that_the_stand_in_sends(stand_in):
    import requests

    shown = [json.loads(block) for block in pages.blocks(API, "json")]
    url, auth = stand_in.base_url + "/api/v1/images", {"Authorization": "Bearer " + KEY}
    order = {"model": "gpt-image-2", "prompt": "a cat"}
    sync = requests.post(url + "/generations", json=order, headers=auth, timeout=10).json()
    accepted = requests.post(url + "/generations", json={**order, "async": True}, headers=auth, timeout=10).json()
    task = requests.get(f"{url}/tasks/{accepted['task_id']}", headers=auth, timeout=10).json()
    while task["status"] != "completed":
        task = requests.get(f"{url}/tasks/{accepted['task_id']}", headers=auth, timeout=10).json()
    assert [_members(one) for one in shown] == [_members(one) for one in (sync, accepted, task)]


def _members(answer: dict) -> tuple:
    return sorted(answer), sorted(answer["data"][0])


# --- commands

def _run_command(words, folder, stand_in) -> dict:
    quick = ["--poll-interval", "0.1"] if words[0] in ("generate", "batch", "wait") else []
    done = running.run(*words, *quick, cwd=folder, base_url=stand_in.base_url, key=KEY)
    assert 0 == done.exit, done
    return done.json


def test_the_commands_of_the_skill_work_one_after_the_other(project, stand_in):
    """In an empty folder, as an agent would run them; the batch file is the line that the page shows."""
    cells = "\n".join(row[1] for row in pages.table(SKILL, "the user wants"))
    (line,) = re.findall(r'`(\{"prompt".*?\})`', cells)
    (project / "orders.jsonl").write_text(line, encoding="utf-8")
    commands = pages.commands(SKILL)
    for words in commands:
        _run_command([word.replace("FOLDER", ".") for word in words], project, stand_in)
    assert len(commands) >= 8
    assert (project / "icons" / "home.png").is_file()
    assert {"fox.png", "fox-2.png", "fox-dusk.png"} <= set(_pictures(project))


def test_the_commands_of_the_prompting_page_work_one_after_the_other(project, stand_in):
    commands = [words for words in pages.commands(PROMPTS) if words[0] == "generate"]
    for words in commands:
        _run_command(words, project, stand_in)
        assert words[words.index("--out") + 1] in _pictures(project)
    assert len(commands) == stand_in.orders


def test_the_readmes_first_command_ends_with_a_picture_and_without_a_key(project):
    (words, *_) = [words for words in pages.commands(README) if "--sandbox" in words]
    done = running.run(*words, cwd=project, key=None)
    assert (0, True, "no") == (done.exit, done.json["sandbox"], done.json["charged"]), done
    assert 1 == len(_pictures(project / "image2-output"))


def test_the_served_sandbox_tells_what_to_export(project):
    with running.start("sandbox", "--port", "0", cwd=project, key=None) as serving:
        answer = json.loads(serving.stdout.readline())
        try:
            done = running.run("check", cwd=project, key=answer["export"]["IMAGE2_API_KEY"],
                               base_url=answer["export"]["IMAGE2_BASE_URL"])
            assert 0 == done.exit, done
        finally:
            serving.terminate()
