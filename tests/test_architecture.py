"""Imports go down the floors only; what must be light is light; the public names are these."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import elastic_nas

PACKAGE = Path(elastic_nas.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    {
        "_version", "errors", "files", "genotype", "specs", "plugins", "config", "settings",
        "budgets", "intervals", "palette", "progress", "machine", "run_file", "single", "yaml_file",
        "energy", "outside", "trusted", "oldest", "strict", "space_check",
    },
    {"nn", "data"},
    {
        "spaces", "tasks", "runtimes", "strategies", "network", "measure", "additive", "runs",
        "kit_device", "kit_figures", "kit_run", "kit_check", "kit_files", "kit_measuring",
    },
    {"training", "latency", "search", "export", "query"},
    {
        "targets", "pipeline", "resume", "alone", "candidates", "delivery", "pictures", "report",
        "import_ofa", "run_images", "finalists", "profiling", "importing", "scoring", "findings",
        "rescoring", "verification", "rescored_images",
    },
    {
        "facts", "api", "cli", "__main__", "",
    },
)  # fmt: skip
"""Parts of the package, the lowest first; "" is the package itself, which imports lazily."""

APART = (
    {"spaces", "tasks", "runtimes", "strategies"},
    {"training", "latency", "search", "export", "query"},
)
"""Parts that never import each other."""


def part_of(module: str) -> str:
    """``elastic_nas.nn.child`` is in part ``nn``."""
    return [*module.split("."), ""][1]


def name_of(path: Path) -> str:
    parts = ["elastic_nas", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, deferred: bool = True) -> set[str]:
    """Modules of this package that a file imports; type-only imports do not count."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.FunctionDef) and not deferred:
            continue
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in whole}
        else:
            waiting += ast.iter_child_nodes(node)
    return {name for name in found if name.split(".")[0] == "elastic_nas"}


MODULES = {name_of(path) for path in FILES}


def floor_of(part: str) -> int:
    found = [number for number, floor in enumerate(FLOORS) if part in floor]
    assert len(found) == 1, f"{part!r} stands on no floor, or on two"
    return found[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_only(path):
    mine = part_of(name_of(path))
    for name in imports(path):
        other = part_of(name)
        assert floor_of(other) <= floor_of(mine), f"{mine} imports {name}"
        for apart in APART:
            assert mine == other or not {mine, other} <= apart, f"{mine} imports {name}"


def test_there_are_no_import_cycles():
    graph = {name_of(path): imports(path, deferred=False) for path in FILES}
    while free := [name for name, needed in graph.items() if not needed & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph


LIGHT = (
    "genotype", "specs", "plugins", "settings", "budgets", "network", "additive", "query",
    "spaces.tiny", "spaces.bignas", "spaces.attentive_nas", "spaces.compact",
    "strategies.evolution", "strategies.random_search", "search.driver", "search.history",
    "latency.table", "latency.predictor", "latency.devices", "runs", "targets", "pipeline",
    "api", "cli.app", "tasks.image_classification", "runtimes.onnxruntime_cpu",
)  # fmt: skip


def test_what_needs_no_torch_imports_none():
    code = "import sys, importlib\n" + "".join(
        f"importlib.import_module('elastic_nas.{name}')\n"
        f"assert not {{'torch', 'onnx', 'onnxruntime', 'scipy'}} & set(sys.modules), '{name}'\n"
        for name in LIGHT
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_the_public_names_are_pinned():
    assert elastic_nas.__all__ == [
        "ElasticNasError", "Network", "Run", "__version__", "open_run", "train", "trust", "verify",
    ]  # fmt: skip
    for name in elastic_nas.__all__:
        assert getattr(elastic_nas, name)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = elastic_nas.trian


def test_importing_the_package_imports_almost_nothing():
    code = "import sys, elastic_nas; print(*[m for m in sys.modules if 'elastic_nas.' in m])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["elastic_nas._version"]


def test_modules_have_telling_names():
    vague = {"utils", "util", "common", "core", "helpers", "misc", "base", "tools"}
    for path in FILES:
        assert not vague & set(name_of(path).lower().split(".")), path


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_unsafe_and_no_error_without_a_message(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}, where
        assert called(node) not in ("eval", "exec", "os.system"), where
        if called(node) == "torch.load":
            assert "weights_only=True" in ast.unparse(node), where
        if called(node) == "yaml.load":
            assert re.search(r"Loader=_Loader\b", ast.unparse(node)), where
        if called(node).endswith(("np.load", "numpy.load")):
            assert "allow_pickle=False" in ast.unparse(node), where
        assert not isinstance(node, ast.ExceptHandler) or node.type is not None, where
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            assert node.exc.args, f"{where} raises without a message"
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
            assert node.exc.id in ALLOWED_BARE, f"{where} raises {node.exc.id}"


ALLOWED_BARE = {"KeyboardInterrupt", "batch", "error"}
"""An interruption needs no words; the others are errors made elsewhere, with theirs."""


def test_files_hold_one_idea():
    for path in FILES:  # far below for most; a longer one is looked at and split by sense
        assert len(path.read_text().splitlines()) <= 400, path


def test_setup_cfg_lists_every_folder_of_the_package():
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {
        ".".join(["elastic_nas", *path.parent.relative_to(PACKAGE).parts])
        for path in [*FILES, *PACKAGE.rglob("*.yaml")]
    }
    data = {"elastic_nas.hardware_profiles", "elastic_nas.latency_tables"}
    assert listed == folders | data
    assert config["options.entry_points"]["console_scripts"].strip() == (
        "elastic-nas = elastic_nas.cli:main"
    )
