"""The pages against the code: what a page names exists, and what exists stands in its page."""

import ast
import json
import re

import pages
import pytest
import running
from image2_cli import VERSION, errors
from image2_cli.cli import arguments
from image2_cli.service import transport
from pages import API, CHANGES, CHINESE, CLI, PAGES, PROMPTS, README, ROOT, SKILL, TROUBLE

# Flags in the pages that are other tools' own.
FOREIGN = {"--fail", "--fail-with-body", "--max-time", "--retry"}
INTERNAL = {"IMAGE2_UV", "IMAGE2_LAUNCHER"}  # between the process and the one it becomes
ROOMS = sorted((ROOT / "scripts" / "image2_cli").rglob("*.py"))


def _verbs() -> dict:
    """verb -> its argparse parser."""
    actions = arguments._parser(list(arguments.VERBS))._actions
    (choices,) = [action.choices for action in actions if isinstance(action.choices, dict)]
    return choices


def _flags(parser) -> set:
    return {flag for action in parser._actions for flag in action.option_strings}


def _names_in_code() -> set:
    """Every text constant and every keyword of the rooms: the only places a field's name can come from."""
    names = set()
    for room in [*ROOMS, ROOT / "scripts" / "image2.py"]:
        for node in ast.walk(ast.parse(room.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
            elif isinstance(node, ast.keyword) and node.arg:
                names.add(node.arg)
    return names


def _in_backticks(cell: str) -> str:
    return re.fullmatch(r"`([^`]+)`", cell).group(1)


# --- flags, verbs, variables

def test_every_flag_named_in_a_page_exists():
    known = set.union(*map(_flags, _verbs().values())) | {"--version"} | FOREIGN
    named = {(page.name, flag) for page in PAGES for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", pages.text(page))}
    assert [] == sorted(pair for pair in named if pair[1] not in known)
    assert len({flag for _, flag in named}) >= 25, "the search finds too little to mean anything"


def test_every_flag_stands_in_the_reference_with_just_its_verbs():
    documented = {}
    for row in pages.table(CLI, "flag"):
        for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row[0]):
            for verb in row[1].split(", "):
                documented.setdefault(verb, set()).add(flag)
    assert {verb: _flags(parser) for verb, parser in _verbs().items()} == documented


def test_the_table_of_verbs_is_the_parsers():
    assert list(_verbs()) == [_in_backticks(row[0]).split()[0] for row in pages.table(CLI, "verb")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_can_be_parsed(page):
    commands = pages.commands(page)
    assert len(commands) >= {SKILL: 8, README: 4, PROMPTS: 6}.get(page, 0), "the search finds too little to mean anything"
    for words in commands:
        if words not in (["--version"], ["VERB"]):
            _, unknown = arguments.parse(words)
            assert [] == unknown, words


def test_every_variable_named_exists_and_every_one_is_documented():
    code = "".join(room.read_text(encoding="utf-8") for room in ROOMS)
    read = set(re.findall(r"IMAGE2_[A-Z_]+", code)) - INTERNAL
    named = {name for page in PAGES for name in re.findall(r"IMAGE2_[A-Z_]+", pages.text(page))}
    assert {"IMAGE2_API_KEY", "IMAGE2_BASE_URL", "IMAGE2_NO_INSTALL"} == read
    assert read == named
    assert read == {_in_backticks(row[0]) for row in pages.table(CLI, "variable")}


def test_the_defaults_in_the_reference_are_the_codes():
    row = {row[0]: row[2] for row in pages.table(CLI, "flag")}
    batch = _verbs()["batch"]
    assert f"default {arguments.TIMEOUT_S:g}, at most {arguments.MAX_TIMEOUT_S:g}" in row["`--timeout SECONDS`"]
    for flag in ("--max-images", "--concurrency"):
        assert f"default {batch.get_default(flag[2:].replace('-', '_'))}" in row[f"`{flag} N`"]


# --- errors and exits

def test_the_table_of_error_codes_is_the_codes_own():
    shown = {_in_backticks(code): (int(exit_status), charged, retryable == "yes")
             for code, exit_status, charged, retryable in pages.table(CLI, "code")}
    assert errors.CODES == shown


def test_every_error_code_has_its_remedy_below_its_exit_status():
    found = {}
    for head, body in re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", pages.text(TROUBLE), re.MULTILINE):
        for code in re.findall(r"^### `(\w+)`$", body, re.MULTILINE):
            found[code] = {int(number) for number in re.findall(r"\d+", head)}
    assert set(errors.CODES) == set(found)
    assert [] == [code for code, (exit_status, _, _) in errors.CODES.items() if exit_status not in found[code]]


def test_the_table_of_exit_statuses_is_the_codes_own():
    shown = {name.upper(): int(number) for number, name, _, _ in pages.table(CLI, "exit")}
    assert {name: getattr(errors, name, None) for name in shown} == shown
    assert running.EXITS == set(shown.values())


def test_the_skills_table_says_what_to_do_after_every_exit_status():
    numbers = [int(number) for row in pages.table(SKILL, "exit") for number in row[0].split(", ")]
    assert sorted(running.EXITS) == sorted(numbers)


# --- the answer

def test_every_field_of_real_answers_is_documented(run, project, service):
    (project / "orders.txt").write_text("a cat\na dog\n")
    quick = ("--poll-interval", "0.1", "--out", "pictures")
    asked = [("generate", "a cat", *quick), ("generate", "a cat", "--dry-run"), ("generate", "a cat", "--n", "0"),
             ("generate", "a cat", "--no-wait", *quick), ("wait", *quick), ("check",), ("status", "task-1"),
             ("batch", "orders.txt", *quick), ("gallery", "pictures")]
    answers = [run(*words).json for words in asked]
    seen = set()
    for answer in answers:
        answer.get("request", {}).pop("body", None)
        _collect(answer, seen)
    assert {"checks", "gallery", "results", "files", "code"} <= seen, "the runs show too little"
    documented = set(re.findall(r"`(\w+)`", pages.text(CLI)))
    assert [] == sorted(seen - documented)


def _collect(value, seen):
    if isinstance(value, dict):
        seen |= set(value)
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _collect(one, seen)


def test_every_name_in_backticks_comes_out_of_the_code():
    """`server_message`, `images[].path`, `error.code`: each part is a name that the code has."""
    known = _names_in_code() | {room.stem for room in ROOMS} | {"before", "created", "async", "cat"}
    named = {(page.name, part) for page in (SKILL, CLI, TROUBLE) for code in pages.inline(page)
             if re.fullmatch(r"[a-z_]+(\[\])?(\.[a-z_]+)*", code) and not code.endswith((".md", ".png", ".json", ".jsonl"))
             for part in re.findall(r"[a-z_]+", code)}
    outside = {"scripts", "data", "uv", "pip", "html", "jpeg", "webp", "gif", "avif", "all"}
    assert [] == sorted(pair for pair in named if pair[1] not in known | outside)
    assert len(named) >= 60, "the search finds too little to mean anything"


@pytest.mark.parametrize("page", [SKILL, README, CLI, API], ids=lambda page: page.name)
def test_every_json_block_is_json(page):
    for block in pages.blocks(page, "json"):
        documents = block.splitlines() if block.count("\n{") else [block]
        for document in documents:
            json.loads(document)


def test_the_answer_shown_in_the_skill_has_just_the_members_of_a_real_one(run, project):
    shown = json.loads(pages.blocks(SKILL, "json")[0])
    real = run("generate", "a red fox", "--size", "64x48", "--out", "fox.png", "--poll-interval", "0.1").json
    assert list(shown) == list(real)
    assert list(shown["images"][0]) == [name for name in real["images"][0] if name != "revised_prompt"]


# --- links and files

def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def test_every_link_within_the_project_leads_somewhere():
    count = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", pages.prose(page)):
            if "://" in target:
                continue
            count += 1
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_file(), (page.name, target)
            if anchor:
                anchors = map(_anchor, re.findall(r"^#+ (.*)$", pages.text(file), re.MULTILINE))
                assert anchor in set(anchors), (page.name, target)
    assert count >= 30


def test_every_file_a_page_names_exists():
    named = {(page.name, path) for page in PAGES
             for path in re.findall(r"(?<![\w./-])((?:scripts|references|tests)/[\w./-]*\w)", pages.text(page))}
    assert [] == sorted(pair for pair in named if not (ROOT / pair[1]).exists())
    assert len(named) >= 8


def test_the_readme_names_every_room():
    (overview,) = [block for block in pages.blocks(README, "text") if "image2_cli/" in block]
    words = set(re.findall(r"\w+", overview.partition("image2_cli/")[2]))
    assert [] == sorted(room.stem for room in ROOMS if room.stem != "__init__" and room.stem not in words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_machine_or_shows_a_key(page):
    text = pages.text(page)
    assert [] == re.findall(r"/(?:home|root|tmp|work|Users|private|opt)/\S*", text)
    assert [] == re.findall(r"sk-[\w-]{8,}", text)


# --- the skill's page

def _frontmatter() -> str:
    return re.match(r"---\n(.*?)\n---\n", pages.text(SKILL), re.DOTALL).group(1)


def _description() -> str:
    return re.search(r'^description: "([^"\\]*)"$', _frontmatter(), re.MULTILINE).group(1)


def test_the_skill_keeps_its_budget_of_words():
    """Every agent that draws pays for each of them; peers take 700 to 7,400."""
    assert 450 <= len(pages.text(SKILL).split()) <= 700


def test_the_frontmatter_has_only_members_that_every_parser_takes():
    members = re.findall(r"^([\w-]+):", _frontmatter(), re.MULTILINE)
    assert ["name", "description", "license", "compatibility", "metadata"] == members
    assert "\nname: image2\n" in "\n" + _frontmatter()


def test_the_description_says_first_what_it_is():
    description = _description()
    assert 40 <= len(description.split()) <= 60
    assert len(description) <= 1024
    assert "<" not in description and ">" not in description
    assert "image2" in description[:160] and "generate images" in description[:160]
    assert "Use when" in description and "生成图片" in description and "Not for" in description


def test_openclaw_gets_a_nested_mapping_with_the_keys_name():
    """As flow JSON it fails the reference validator, as text it is not read, and `requires.env` hides the skill."""
    metadata = _frontmatter().partition("\nmetadata:\n")[2]
    assert '  openclaw:\n    primaryEnv: "IMAGE2_API_KEY"' in metadata
    assert "requires" not in metadata
    assert [] == [line for line in metadata.splitlines() if not re.fullmatch(r' +\w+:( "[^"]*")?', line)]


def test_the_skill_declares_network_and_host():
    (declared,) = re.findall(r'^compatibility: "(.*)"$', _frontmatter(), re.MULTILINE)
    assert "network" in declared and "image2.vip" in declared
    assert len(declared) <= 500


def test_the_skills_commands_are_plain():
    """Hosts' approval rules match neither variable prefixes nor redirections."""
    for block in pages.blocks(SKILL, "bash"):
        for line in block.splitlines():
            assert line.startswith("python3 scripts/image2.py ")
            assert not set("<>|&;$") & set(line)
    assert "export" not in pages.text(SKILL)


# --- agreement

def test_the_versions_agree():
    (frontmatter,) = re.findall(r'^  version: "(.*)"$', _frontmatter(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", pages.text(CHANGES), re.MULTILINE).group(1)
    assert [VERSION] * 3 == [frontmatter, newest, transport.USER_AGENT.partition("/")[2]]
    assert VERSION in running.run("--version").stdout


def test_the_readme_sets_up_with_two_commands_and_ci_runs_the_second():
    develop = pages.text(README).partition("\n## Develop\n")[2].partition("\n## ")[0]
    shown = re.findall(r"```bash\n(.*?)\n```", develop, re.DOTALL)[:2]
    assert ['python3 scripts/image2.py generate "a red fox in snow" --sandbox', "python3 tests/run.py"] == shown
    assert shown[1] in (ROOT / "tests" / "ci.sh").read_text(encoding="utf-8")
    assert ["exec bash tests/ci.sh"] == (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_chinese_page_shows_the_commands_of_the_readme():
    def plain(page):
        lines = "".join(pages.blocks(page, "bash") + pages.blocks(page, "text")).splitlines()
        return {re.sub(r'generate "[^"]*"', 'generate ""', line) for line in lines}

    assert plain(CHINESE) <= plain(README)
    assert len(plain(CHINESE)) >= 8
