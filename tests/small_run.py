"""A small run that was trained, has a table and was searched; and the command line in process."""

import json
import shutil
from pathlib import Path
from typing import Any

import fake_latency
import pytest
import yaml
from typer.testing import CliRunner

from elastic_nas import delivery, pipeline
from elastic_nas.budgets import Budgets
from elastic_nas.cli.app import app
from elastic_nas.config import RunConfig
from elastic_nas.latency.devices import load_device
from elastic_nas.latency.table import LatencyTable
from elastic_nas.machine import environment
from elastic_nas.measure import Timing
from elastic_nas.network import Network
from elastic_nas.run_file import parse_run
from elastic_nas.runs import RunFolder
from elastic_nas.targets import runtime_of

DEVICE = "local-ort-1t"
SPACE = "tiny:size=8"
STEPS = 6


def config(**train: object) -> RunConfig:
    """A run file for a training of a second."""
    length = {} if {"epochs", "minutes"} & set(train) else {"steps": STEPS}
    fields = {"batch_size": 32, "threads": 1, "augment": {"strong": "none"}, **length, **train}
    few = ("calibration_images", "validation_images", "export_calibration_images")
    search = {"evaluations": 8, **dict.fromkeys(few, 64)}
    return parse_run({"space": SPACE, "train": fields, "search": search})


def run_file(path: Path, **train: object) -> str:
    """The same as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config(**train).model_dump()))
    return str(path)


def table_of_here(network: Network) -> LatencyTable:
    """Made-up figures of this very machine."""
    table = fake_latency.table(network)
    runtime = runtime_of(load_device(DEVICE))
    table.device.update({**environment(), "name": DEVICE})
    table.runtime.update(runtime.describe())
    return table


def make_run(folder: Path) -> RunFolder:
    """Train, tabulate, search."""
    run = pipeline.train(config(), folder)
    table_of_here(run.network).write(run.table(DEVICE))
    pipeline.search(run, DEVICE, Budgets())
    return run


@pytest.fixture(scope="session")
def made_run(tmp_path_factory) -> Path:
    """The folder of such a run; not to be changed."""
    return make_run(tmp_path_factory.mktemp("made") / "run").path


@pytest.fixture
def run(made_run, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))


@pytest.fixture
def stopped_clock(monkeypatch):
    """Exported files take 0.5 ms, without measuring."""

    def measure(runs, protocol, owns_threads=False):
        return {"child": Timing(0.5, 0.5, 0.5, 0.5, 0.5, 30, 0.9, [0.5])}

    monkeypatch.setattr(delivery, "measure", measure)


def cli(*arguments: object) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def done(*arguments: object) -> str:
    """What a command that succeeds prints on standard output."""
    result = cli(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def facts(*arguments: object) -> dict:
    """The JSON object that a command prints: one, and nothing else."""
    found = json.loads(done(*arguments, "--json"))
    assert isinstance(found, dict)
    return found


def refused(*arguments: object, status: int = 1) -> str:
    """What a command that fails says: one message, and nothing on standard output."""
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but the lock."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.name != ".lock"}
