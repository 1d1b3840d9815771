"""The architecture: which folder may import which, three hard rules, and how much of everything there may be.

Read off the source by `ast`, so also what a function imports only when it runs. Every rule is a function from a
module's source to what breaks it; a last table proves that each of them finds something. Types are mypy's business,
the syntax of 3.9 and `%` in texts ruff's.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
PACKAGE = SCRIPTS / "image2_cli"
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
PACKAGES = {"requests", "urllib3", "dotenv"}

# folder: the folders, or single modules of them, that it may import; the leaves are everybody's
LEAVES = {"answer", "clock", "errors", "text"}
TABLE = {
    "cli": {"batch", "gallery", "sandbox", "machine", "order", "service"},
    "batch": {"order"},
    "gallery": {"order"},
    "sandbox": set(),
    "machine": set(),
    "order": {"service", "pictures"},
    "pictures": {"service/transport"},
    "service": set(),
}
FLAT = {"main": {"cli", "machine"}, "answer": set(), "clock": set(), "errors": set(), "text": set()}

HOLDS_THE_KEY = {"service/api", "sandbox/server"}  # one sends it, the other asks for it
PRINTS_AND_EXITS = {"main"}
READS_THE_ENVIRONMENT = {"machine/settings", "machine/packages", "machine/fetching", "machine/inputs"}

MOST_LINES_OF_A_FUNCTION = 40
MOST_FILES, MOST_FLAT, MOST_BYTES = 34, 8, 1_000_000
EXIT_OR_PRINT = {"print", "input", "exit", "quit", "sys.exit", "sys.stdout", "sys.__stdout__", "os._exit", "os.abort"}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}


@functools.cache
def source(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text(encoding="utf-8")


@functools.cache
def nodes_of(text: str) -> list:
    return list(ast.walk(ast.parse(text)))


def functions(text: str) -> list:
    return [node for node in nodes_of(text) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


@functools.cache
def ours(module: str, text: str) -> set[str]:
    """The modules of ours that a module imports anywhere in it: `order/record`, `errors`."""
    found = set()
    for node in nodes_of(text):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = module.split("/")[:-1]
        place = folder[: len(folder) - node.level + 1] + (node.module.split(".") if node.module else [])
        names = ["/".join([*place, alias.name]) for alias in node.names]
        found |= {name if name in MODULES else "/".join(place) for name in names}
    return found


def foreign(text: str) -> set[str]:
    """The outermost names of everything else that is imported."""
    nodes = nodes_of(text)
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


# --- the rules: what breaks them in a source

def reaches_too_far(module: str, text: str) -> list[str]:
    folder = module.partition("/")[0]
    allowed = (TABLE.get(folder) or set()) | FLAT.get(module, set()) | {folder} | LEAVES
    return [name for name in ours(module, text) if name not in allowed and name.partition("/")[0] not in allowed]


def uses(names: set[str], text: str) -> list[str]:
    nodes = [node for node in nodes_of(text) if isinstance(node, (ast.Attribute, ast.Name))]
    return [dotted(node) for node in nodes if dotted(node) in names]


def sends_the_key(module: str, text: str) -> list[str]:
    return [] if module in HOLDS_THE_KEY else re.findall(r"""["']Authorization|Bearer \{|["']Bearer ["'] \+""", text)


def prints_or_exits(module: str, text: str) -> list[str]:
    return [] if module in PRINTS_AND_EXITS else uses(EXIT_OR_PRINT, text)


def reads_the_environment(module: str, text: str) -> list[str]:
    return [] if module in READS_THE_ENVIRONMENT else uses(ENVIRONMENT, text)


def long_functions(module: str, text: str) -> list[str]:
    return [node.name for node in functions(text) if node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION]


def renamed_imports(module: str, text: str) -> list[str]:
    """Modules, not what is in them: the language would report a bad name."""
    nodes = [node for node in nodes_of(text) if isinstance(node, (ast.Import, ast.ImportFrom))]
    own = {name.rpartition("/")[2] for name in MODULES}
    return [f"{alias.name} as {alias.asname}" for node in nodes for alias in node.names
            if alias.asname and (isinstance(node, ast.Import) or not node.level or alias.name in own)]


def no_words_about_itself(module: str, text: str) -> list[str]:
    """A module says what it does and what it may not touch."""
    words = ast.get_docstring(ast.parse(text)) or ""
    limits = re.search(r"\b(no|not|never|nothing|nobody|only|pure|alone|without|cannot|leaf)\b", words, re.IGNORECASE)
    return [] if words and limits else [words or "no docstring"]


def annotations_that_run(module: str, text: str) -> list[str]:
    """Python 3.9 stumbles over those of today where they are run."""
    future = [node for node in nodes_of(text) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return [] if future else ["no `from __future__ import annotations`"]


def not_of_any_python_3(module: str, text: str) -> list[str]:
    """What a Python 3 that is older than 3.9 takes for a syntax error, which would hide the answer from its user."""
    try:
        parsed = ast.parse(text, feature_version=(3, 4))
    except SyntaxError as error:
        return [str(error)]
    new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Await)
    nodes = list(ast.walk(parsed))
    future = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return [type(node).__name__ for node in [*future, *nodes] if node in future or isinstance(node, new)]


def strange_packages(module: str, text: str) -> list[str]:
    standard = getattr(sys, "stdlib_module_names", None)  # 3.9 does not know them
    return [name for name in foreign(text) if standard and name not in standard and name not in PACKAGES]


RULES = [reaches_too_far, sends_the_key, prints_or_exits, reads_the_environment, long_functions, renamed_imports,
         no_words_about_itself, annotations_that_run, strange_packages]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_breaks_the_rule(rule):
    broken = {module: rule(module, source(module)) for module in MODULES}
    assert {} == {module: found for module, found in broken.items() if found}


def test_the_entry_parses_on_any_python_3():
    assert [] == not_of_any_python_3("", (SCRIPTS / "image2.py").read_text(encoding="utf-8"))


def test_no_circle_of_imports():
    imports = {module: ours(module, source(module)) for module in MODULES}
    graphlib.TopologicalSorter(imports).prepare()  # raises what names the circle


def test_every_folder_has_its_row_and_is_there():
    assert {*TABLE, *FLAT} == {module.partition("/")[0] for module in MODULES}


def test_a_row_allows_no_more_than_its_folder_uses():
    for folder, allowed in {**TABLE, **FLAT}.items():
        modules = [module for module in MODULES if module.partition("/")[0] == folder]
        used = {name for module in modules for name in ours(module, source(module))}
        used |= {name.partition("/")[0] for name in used}
        assert set() == allowed - used, folder


def test_the_packages_are_the_two_and_what_they_bring():
    assert PACKAGES == PACKAGES & {name for module in MODULES for name in foreign(source(module))}


# --- how much there may be

def test_files_are_few_and_none_is_an_init():
    assert [] == [path for path in SCRIPTS.rglob("__init__.py")]  # some installers drop what begins with an underscore
    assert [] == [module for module in MODULES if re.search(r"(^|/)_|[^a-z0-9_/]", module)]
    flat = [module for module in MODULES if "/" not in module] + ["image2"]
    assert len(flat) <= MOST_FLAT
    assert len(MODULES) + 1 - len(flat) <= MOST_FILES


@pytest.mark.slow
def test_an_installer_copies_less_than_1_mb():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=-1)
    if listed.returncode:
        pytest.skip("this copy is no git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert sum(path.stat().st_size for path in paths if path.is_file()) < MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("line", ["--help", "generate --help", "generate x --n 99", "generate x", "generate x --dry-run"])
def test_what_needs_no_package_loads_none(line, tmp_path):
    """Help, a mistake, a missing key and a dry run answer in about the time of an empty Python."""
    tell = ("import runpy, sys\nsys.argv = sys.argv[1:]\ntry:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
            f"finally:\n    print(sorted({PACKAGES!r} & set(sys.modules)), file=sys.stderr)")
    environment = {"HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", tell, SCRIPTS / "image2.py", *line.split()], capture_output=True, text=True,
                          cwd=tmp_path, env=environment, timeout=60)
    assert "[]" == done.stderr.splitlines()[-1], done.stderr


# --- does each rule find anything?

@pytest.mark.parametrize("rule, module, text", [
    (reaches_too_far, "service/task", "from ..order import record"),
    (reaches_too_far, "pictures/download", "from ..service.api import Api"),
    (reaches_too_far, "errors", "from .order.record import Record"),
    (sends_the_key, "order/order", "headers = {'Authorization': key}"),
    (prints_or_exits, "cli/commands", "def f():\n    print('x')"),
    (reads_the_environment, "cli/commands", "import os\nos.environ.get('HOME')"),
    (long_functions, "errors", "def f():\n" + "    x = 1\n" * 40),
    (renamed_imports, "errors", "from .order import record as records"),
    (no_words_about_itself, "errors", "'''Errors.'''"),
    (annotations_that_run, "errors", "from math import pi"),
    (not_of_any_python_3, "", "x: int = 1"),
    pytest.param(strange_packages, "errors", "import numpy", marks=pytest.mark.skipif(
        sys.version_info < (3, 10), reason="3.9 does not know the names of its own library")),
])
def test_each_rule_finds_what_breaks_it(rule, module, text):
    assert rule(module, text)


def test_the_search_finds_the_modules_and_their_imports():
    assert len(MODULES) > 20
    assert {"errors"} <= ours("service/api", source("service/api"))
    assert ours("pictures/download", source("pictures/download")) & {"service/transport"}
    assert uses(EXIT_OR_PRINT, source("main")) and uses(ENVIRONMENT, source("machine/settings"))
    assert "Authorization" in source("service/api")
