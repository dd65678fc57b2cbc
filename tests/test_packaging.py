"""The package from a wheel, an editable install and a bare checkout: data folders are found."""

import configparser
import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_run import DEVICE, SPACE, table_of_here

from elastic_nas.network import Network

ROOT = Path(__file__).parent.parent
OTHER = "local-ort-2t"
PARTS = (
    "elastic_nas", "hardware_profiles", "latency_tables", "setup.cfg", "pyproject.toml",
    "README.md", "LICENSE",
)  # fmt: skip


def executed(*command: object, folder: Path, path: Path | None = None) -> str:
    """Standard output of a command that must succeed, run in `folder`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {} if path is None else {"PYTHONPATH": str(path)}
    ended = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what a build needs, so that the working tree stays as it is."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, folder / name)
    (folder / "latency_tables").mkdir(exist_ok=True)
    table = table_of_here(Network(SPACE, 10))  # beside what ships already
    table.device["name"] = OTHER
    table.runtime["threads"] = 2
    table.write(folder / "latency_tables" / f"{OTHER}.json")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    executed(*pip, "--no-index", "--wheel-dir", out, checkout, folder=out)
    (made,) = out.glob("*.whl")
    return made


def dependencies(folder: Path, python: Path) -> None:
    """Let a new environment see what is installed here, but not this package."""
    (packages,) = [Path(p) for p in site.getsitepackages() if Path(p, "numpy").is_dir()]
    visible = folder / "dependencies"
    visible.mkdir()
    for entry in packages.iterdir():
        if "elastic_nas" not in entry.name and not entry.name.endswith(".pth"):
            (visible / entry.name).symlink_to(entry)
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(executed(python, "-c", show, folder=folder).strip())
    (own / "dependencies.pth").write_text(f"{visible}\n")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """An environment without this package; returns its folder of programs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", symlinks=True, with_pip=False)
    programs = folder / "venv" / "bin"
    dependencies(folder, programs / "python")
    return programs


def install(programs: Path, *what: object, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet"]
    flags = ["--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall"]
    executed(*pip, *flags, *what, folder=folder)


def check(python: Path, home: Path, run: Path, folder: Path, path: Path | None = None) -> None:
    """Profiles, tables and a run can be used from another folder; the package is in `home`."""
    where = "import elastic_nas; print(elastic_nas.__file__)"
    assert executed(python, "-c", where, folder=folder, path=path).startswith(str(home))
    command = [python, "-m", "elastic_nas"]

    def found(*words: object) -> dict:
        return json.loads(executed(*command, *words, "--json", folder=folder, path=path))

    devices = {row["name"]: row for row in found("list", "devices")["devices"]}
    assert devices.keys() >= {path.stem for path in (ROOT / "hardware_profiles").glob("*.yaml")}
    own = run / "latency_tables" / f"{DEVICE}.json"
    assert found("predict", DEVICE, SPACE, "--classes", 10, "--table", own)["latency_ms"] > 0
    assert found("query", run, "--device", DEVICE, "--latency", "5ms")["genotype"]
    shipped = [*ROOT.glob("latency_tables/*.json"), Path(OTHER)]
    assert all(devices[path.stem]["table"].startswith(str(home)) for path in shipped)
    assert found("predict", OTHER, SPACE, "--classes", 10)["latency_ms"] > 0
    assert "digits" in executed(
        python, "-c", "from elastic_nas.run_file import recipes; print(recipes())",
        folder=folder, path=path,
    )  # fmt: skip


def test_a_wheel_carries_data_and_types_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    profiles = sorted((ROOT / "hardware_profiles").glob("*.yaml"))
    for name in (
        "py.typed",
        "recipes/digits.yaml",
        *(f"hardware_profiles/{path.name}" for path in profiles),
        *(f"latency_tables/{path.name}" for path in ROOT.glob("latency_tables/*.json")),
        f"latency_tables/{OTHER}.json",
    ):
        assert f"elastic_nas/{name}" in names
    assert all(name.startswith("elastic_nas") for name in names)
    files = {str(p.relative_to(ROOT)) for p in (ROOT / "elastic_nas").rglob("*.py")}
    assert files == {name for name in names if name.endswith(".py")}


def test_an_installed_wheel_works_from_another_folder(wheel, environment, made_run, tmp_path):
    install(environment, wheel, folder=tmp_path)
    check(environment / "python", environment.parent, made_run, tmp_path)
    assert "elastic-nas" in executed(environment / "elastic-nas", "--version", folder=tmp_path)


def test_an_editable_install_works_from_another_folder(checkout, environment, made_run, tmp_path):
    install(environment, "--editable", checkout, folder=tmp_path)
    check(environment / "python", checkout, made_run, tmp_path)


def test_a_checkout_works_without_being_installed(checkout, made_run, tmp_path):
    check(Path(sys.executable), checkout, made_run, tmp_path, path=checkout)


# --- versions ---------------------------------------------------------------------------------


def required() -> list[Requirement]:
    """All that `setup.cfg` asks for, with what is optional."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return [Requirement(line) for text in texts for line in text.split("\n") if line.strip()]


def pinned() -> dict[str, str]:
    """Versions of the constraints file, by package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all([one.operator for one in pin.specifier] == ["=="] for pin in pins)
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def test_nobody_is_locked_out_of_newer_releases():
    for requirement in required():
        assert {one.operator for one in requirement.specifier} <= {">="}, requirement


def test_the_tested_versions_satisfy_the_lower_bounds():
    pins = pinned()
    for requirement in required():
        name = canonicalize_name(requirement.name)
        if name != "setuptools":  # pip's own; no part of what is frozen
            assert requirement.specifier.contains(pins[name]), requirement


def test_make_installs_the_tested_versions():
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text()
