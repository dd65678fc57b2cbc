"""Data never name code: a Python file runs if this user named it, or its content, before."""

import json
import shutil
from pathlib import Path

import pytest
from small_run import DEVICE, cli, done, refused, run_file

import elastic_nas
from elastic_nas import plugins
from elastic_nas.errors import UntrustedCode
from elastic_nas.network import Network
from elastic_nas.runs import RunFolder
from elastic_nas.trusted import trust

SPACE = """
from pathlib import Path

from elastic_nas.spaces.tiny import Space as Tiny
from dataclasses import dataclass

(Path({here!r}) / "ran").write_text("")

@dataclass(frozen=True)
class Space(Tiny):
    size: int = 8
    extra: int = {number}

    @property
    def name(self) -> str:
        return "own"
"""


@pytest.fixture
def space(tmp_path) -> Path:
    """A space in a file, which leaves a trace when it runs."""
    return write_space(tmp_path, 1)


def write_space(folder: Path, number: int) -> Path:
    path = folder / "own.py"
    path.write_text(SPACE.format(here=str(folder), number=number))
    return path


def ran(space: Path) -> bool:
    """Whether it ran since the last question."""
    trace = space.with_name("ran")
    found = trace.exists()
    trace.unlink(missing_ok=True)
    return found


@pytest.fixture
def own_run(space, tmp_path) -> Path:
    """A run of that space, trained by this user, in whose folder it is known."""
    file = run_file(tmp_path / "mine.yaml")
    done("train", file, "--space", space, "--out", tmp_path / "own", "--set", "train.steps=1")
    assert ran(space)
    return tmp_path / "own"


def forget(monkeypatch, tmp_path) -> None:
    """As on another machine, where nothing was named yet."""
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "other home"))


def test_what_the_user_named_runs_in_every_later_stage(own_run, space):
    done("export", own_run, "--genotype", "smallest", "--out", own_run / "child")
    assert ran(space)
    done("train", "--resume", "--out", own_run, "--set", "train.steps=2")
    assert ran(space)


def test_a_strangers_run_runs_nothing(own_run, space, monkeypatch, tmp_path):
    forget(monkeypatch, tmp_path)
    words = (
        ("export", own_run, "--genotype", "smallest", "--out", tmp_path / "child"),
        ("search", own_run, "--device", DEVICE),
        ("query", own_run, "--device", DEVICE, "--latency", "5ms"),
        ("profile", DEVICE, "--run", own_run),
        ("train", "--resume", "--out", own_run),
        ("train-child", own_run, "--genotype", "smallest", "--out", tmp_path / "one"),
    )
    for command in words:
        message = refused(*command)
        assert "names the Python file" in message
        assert str(space) in message
        assert "--trust" in message
        assert not ran(space), command


def test_trust_is_given_once_and_of_this_content_alone(own_run, space, monkeypatch, tmp_path):
    forget(monkeypatch, tmp_path)
    export = ("export", own_run, "--genotype", "smallest", "--out", tmp_path / "child")
    done(*export, "--trust")
    assert ran(space)
    done(*export)
    assert ran(space)
    moved = shutil.move(space, tmp_path / "moved.py")
    record = own_run / "network.json"
    record.write_text(record.read_text().replace(str(space), str(moved)))
    done(*export)  # the same content in another place
    assert ran(space)
    write_space(tmp_path, 2).rename(moved)
    assert "--trust" in refused(*export)
    assert not ran(space)
    assert "trusted:" in done("trust", moved)
    done(*export)
    assert ran(space)


def test_tasks_and_strategies_of_a_strangers_run(run, space):
    for name, change in (
        ("network.json", lambda r: r.replace('"image_classification"', json.dumps(str(space)))),
        ("run.yaml", lambda r: r.replace("strategy: evolution", f"strategy: {space}")),
    ):
        path = run / name
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before
        assert "--trust" in refused("search", run, "--device", DEVICE)
        assert not ran(space)
        path.write_text(before)


def test_a_profile_names_no_code_unless_the_person_does(space, tmp_path):
    profile = Path(plugins.__file__).parent.parent / "hardware_profiles" / f"{DEVICE}.yaml"
    own = tmp_path / "mine.yaml"
    text = profile.read_text().replace(DEVICE, "mine")
    own.write_text(text.replace("runtime: onnxruntime_cpu", f"runtime: {space}"))
    words = ("predict", own, "tiny:size=8", "--table", tmp_path / "none.json")
    assert "no latency table" in refused(*words)
    assert "--trust" in refused("profile", own, "--space", "tiny:size=8")
    assert not ran(space)


def test_python_names_files_and_is_remembered(space, monkeypatch, tmp_path):
    assert Network(str(space), 10).space.name == "own"
    assert ran(space)
    assert Network(str(space), 10, named_in="somebody's").space.name == "own"
    forget(monkeypatch, tmp_path)
    with pytest.raises(UntrustedCode, match="somebody's names the Python file"):
        _ = Network(str(space), 10, named_in="somebody's").space
    assert elastic_nas.trust(space) == trust(space)
    assert Network(str(space), 10, named_in="somebody's").space.name == "own"


def test_a_changed_strategy_of_ones_own_is_named_on_the_command_line(own_run, space, tmp_path):
    strategy = tmp_path / "walk.py"
    strategy.write_text(
        "from dataclasses import dataclass\n"
        "from elastic_nas.strategies.random_search import Search as Other\n"
        "@dataclass\nclass Search(Other):\n    pass\n"
    )
    change = ("--set", f"search.strategy={strategy}", "--set", "train.steps=2")
    done("train", "--resume", "--out", own_run, *change)
    assert RunFolder(own_run).network.space.name == "own"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "fails when imported: SystemExit: 3"),
        ("1 / 0", "fails when imported: ZeroDivisionError"),
        ("def", "fails when imported: SyntaxError"),
        ("\x00", "fails when imported"),
        ("Space = 3", "defines no dataclass 'Space'"),
        (
            "from dataclasses import dataclass\n@dataclass\nclass Space:\n    size: int",
            "fails when it is used: TypeError",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass Space:\n    name: str = 'x'",
            "lacks dims, units",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass Space:\n"
            "    def __post_init__(self): raise KeyError('k')",
            "fails when it is used: KeyError",
        ),
    ],
)
def test_files_that_are_no_plugins(tmp_path, code, said):
    path = tmp_path / "bad.py"
    path.write_text(code)
    assert said in refused("describe", path)


def test_places_that_are_no_files(tmp_path):
    (tmp_path / "folder.py").mkdir()
    assert "no file" in refused("describe", tmp_path / "folder.py")
    assert cli("trust", tmp_path / "nowhere.py").exit_code == 1
