"""The package as a whole: its names, its rooms, and the arrows between them."""

import ast
import graphlib
import inspect
import tomllib
from pathlib import Path

import pytest

import gtnlib

ROOT = Path(__file__).parents[1]
PACKAGE = Path(gtnlib.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
           for path in sorted(PACKAGE.rglob("*.py"))}  # fmt: skip

# What every room of the house may lean on, by the plan; a room that is not listed stands on top of
# these, where nothing leans on it.
BELOW = {
    "errors": set(),
    "progress": set(),
    "data": {"errors"},
    "students": {"errors"},
    "vit": {"errors", "students"},
    "architectures": {"errors", "students"},
    "ranks": set(),
    "inner": {"errors", "students"},
    "compiled": {"students"},
    "stacked": {"inner", "students"},
    "teachers": {"errors", "files", "data", "students"},
    "metagrad.base": {"data", "inner"},
    "metagrad.unrolled": {"errors", "data", "inner", "students", "metagrad.base"},
    "metagrad.implicit": {"errors", "data", "inner", "students", "metagrad.base"},
    "metagrad.matching": {"errors", "data", "inner", "students", "metagrad.base"},
    "metagrad": {"metagrad.unrolled", "metagrad.implicit", "metagrad.matching"},
    "evaluate": {"errors", "data", "inner", "stacked", "students", "teachers"},
    "training": {"errors", "data", "evaluate", "students"},
    "jobs": {"errors", "configuration", "files", "progress"},
    "rank_statistics": {"errors"},
    "coresets": {"errors", "data", "teachers"},
    "history": set(),
    "precision": {"errors"},
    "configuration": set(),
    "files": {"errors"},
    "checkpoint": {"errors", "files", "configuration", "history", "inner", "students"},
    "fit": {"errors", "progress", "ranks", "precision", "configuration", "history", "checkpoint",
            "data", "inner", "students", "compiled", "stacked", "metagrad", "metagrad.base", "evaluate"},
}  # fmt: skip


def imports(path):
    """Modules of gtnlib that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively, which this test cannot follow"
            base = node.module.split(".")
            if base[0] == "gtnlib":
                name = ".".join(base[1:])
                inside = {f"{name}.{alias.name}".lstrip(".") for alias in node.names} & MODULES.keys()
                found |= inside or {name}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("gtnlib.") for a in node.names if a.name.startswith("gtnlib")}
    return found


def test_every_public_name_exists_and_is_documented():
    assert len(set(gtnlib.__all__)) == len(gtnlib.__all__)
    for name in gtnlib.__all__:
        assert inspect.getdoc(getattr(gtnlib, name)), name


def test_star_import_gives_the_public_names():
    names = {}
    exec("from gtnlib import *", names)
    assert set(gtnlib.__all__) == names.keys() - {"__builtins__"}


def test_version_is_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert gtnlib.__version__ == project["version"]


@pytest.mark.parametrize("module", BELOW)
def test_arrows_run_downwards(module):
    assert imports(MODULES[module]) <= BELOW[module]


def test_there_are_no_circles():
    """Inside functions too, where Python itself would not complain."""
    graph = {name: imports(path) for name, path in MODULES.items() if name != "__init__"}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_the_test_of_arrows_sees_every_room():
    assert BELOW.keys() <= MODULES.keys()
    assert imports(MODULES["__init__"]) >= {"data", "fit", "metagrad", "teachers"}


def test_every_folder_of_code_is_packaged():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in PACKAGE.rglob("__init__.py")}
    assert folders == set(tools["setuptools"]["packages"])


def test_importing_the_package_touches_no_random_state(random_state_untouched):
    import importlib

    importlib.reload(gtnlib)


def test_the_package_is_small():
    assert sum(p.stat().st_size for p in PACKAGE.rglob("*") if p.suffix != ".pyc" and p.is_file()) < 30e6


def test_the_wheel_carries_the_records():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tools["setuptools"]["package-data"]["gtnlib"]
    carried = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    assert set((PACKAGE / "recorded").iterdir()) <= carried
