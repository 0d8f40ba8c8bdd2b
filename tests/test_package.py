"""The package as a whole: its names, its rooms, and the arrows between them."""

import ast
import graphlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gtnlib

ROOT = Path(__file__).parents[1]
PACKAGE = Path(gtnlib.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
           for path in sorted(PACKAGE.rglob("*.py"))}  # fmt: skip


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


def test_arrows_run_downwards():
    """The contract of pyproject.toml; an upward import breaks it."""
    done = subprocess.run(["lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_there_are_no_circles():
    """Inside functions too, where Python itself would not complain."""
    graph = {name: imports(path) for name, path in MODULES.items() if name != "__init__"}
    tuple(graphlib.TopologicalSorter(graph).static_order())


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


def test_no_public_name_is_lost():
    assert set(gtnlib.__all__) >= set(
        """
        LESSON LONG LONG_AUGMENTED MLP VGG AlexNet Architecture Augment ConvNet DataError Dataset
        DistributionMatching DivergenceError DivergenceWarning FlatStudent
        GeneratorTeacher GradientMatching History Implicit LeNet OuterStep PixelTeacher RealTeacher Report
        Protocol ResNet Split Statistic StudentRun TeachingSet Unrolled Variation VisionTransformer
        accuracy best_rate default_device evaluate fit inner_step load_dataset make_student
        sample_architectures train_student
    """.split()
    )


IMPORT = """
import sys, time
times = [time.process_time()]
import torch
times.append(time.process_time())
before = set(sys.modules)
import gtnlib
times.append(time.process_time())
print(times[1] - times[0], times[2] - times[1], *set(sys.modules) - before)
"""


def test_importing_the_package_loads_hardly_more_than_torch():
    """No figure, widget, table or experiment, and no more than a tenth of the time."""
    ratios = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
        torch, ours, *loaded = done.stdout.split()
        assert not [name for name in loaded if name.startswith(("gtnlib.show", "gtnlib.experiments"))]
        foreign = {name.partition(".")[0].lstrip("_") for name in loaded} - sys.stdlib_module_names
        assert foreign <= {"gtnlib", "numpy", "safetensors", "tqdm"}
        ratios.append(float(ours) / float(torch))
        if ratios[-1] < 0.1:
            break
    assert min(ratios) < 0.1


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_modules_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = isinstance(node.body[0], ast.Expr) and len(node.body) > 1
            first = node.body[1 if documented else 0].lineno
            assert node.end_lineno - first + 1 <= 90, node.name
