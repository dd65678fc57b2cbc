"""Whatever lies in place of a file of a run: one message, in no time, and nothing is lost."""

import json
import os
from pathlib import Path

import pytest
import yaml
from small_run import DEVICE, SPACE, cli, done, facts, refused, snapshot

from elastic_nas.errors import ConfigError, RunFolderError
from elastic_nas.network import Network
from elastic_nas.runs import RunFolder, open_run

QUERY = ("--device", DEVICE, "--latency", "5ms")
LONG = "x" * 10_000_000


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def text(content: bytes):
    def write(path: Path) -> None:
        path.write_bytes(content + b"\n")

    return write


IN_PLACE = {
    "pipe": pipe,
    "loop": loop,
    "endless": endless,
    "folder": folder,
    "empty": text(b""),
    "nul": text(b"\0" * 100),
    "not_utf8": text(b"\xff\xfe{}"),
    "nested": text(b"[" * 100_000),
    "twice": text(b'{"a": 1, "a": 2}'),
    "half_a_character": text(b'{"a": "\\ud800"}'),
    "number": text(b"9" * 9000),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_nothing_in_place_of_a_file_hangs_or_escapes(run, kind):
    asked = {
        "network.json": ("query", run, *QUERY),
        "ties.json": ("query", run, *QUERY),
        "history.jsonl": ("query", run, *QUERY),
        "run.yaml": ("search", run, "--device", DEVICE),
        "supernet.safetensors": ("search", run, "--device", DEVICE),
    }
    for name, words in asked.items():
        path = run / name
        before = path.read_bytes()
        path.unlink()
        IN_PLACE[kind](path)
        if not (name == "network.json" and kind in ("pipe", "loop", "endless", "folder")):
            assert name in refused(*words)
        else:
            assert "holds no run" in refused(*words)
        path.rmdir() if kind == "folder" else path.unlink()
        path.write_bytes(before)
    facts("query", run, *QUERY)


RECORD = [
    ("classes", True, "classes: must be a valid integer, got True"),
    ("classes", 10.0, "classes: must be a valid integer, got 10.0"),
    ("classes", 1_000_000_000, "classes: must be less than or equal to 100000"),
    ("classes", 11, "11 classes have 10 labels"),
    ("labels", ["a"] * 10, "two classes have the same label"),
    ("labels", [str(i) for i in range(9)] + [LONG], "at most 1000 characters"),
    ("labels", list(range(10)), "labels.0: must be a valid string"),
    ("labels", None, "labels: must be a valid list"),
    ("space", "", "space: String should have at least 1 character"),
    ("space", LONG, "at most 4096 characters"),
    ("identity", "zz", "identity: String should match"),
    ("schema", "elastic-run/9", "schema: must be 'elastic-run/1'"),
    ("other", 1, "unknown key 'other'"),
]


@pytest.mark.parametrize(("key", "value", "said"), RECORD, ids=lambda value: str(value)[:30])
def test_a_record_that_train_never_writes_is_named(run, key, value, said):
    path = run / "network.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(RunFolderError) as error:
        _ = RunFolder(run).network
    assert said in str(error.value)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("labels", [["a", "a"], ["a", "\ud800"], ["a", "b" * 1001]])
def test_what_could_not_be_read_again_is_not_written(tmp_path, labels):
    with pytest.raises(ConfigError, match="these classes cannot be written"):
        RunFolder(tmp_path).write_record(Network(SPACE, 2), tuple(labels))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value",
    [[], None, 7, {}, {"weights": True}, {"weights": "x" * 64}, {"weights": "0" * 63}],
    ids=str,
)
def test_ties_that_search_never_writes_are_named(run, value):
    path = run / "ties.json"
    ties = json.loads(path.read_text())
    path.write_text(json.dumps({**ties, **value} if isinstance(value, dict) and value else value))
    assert f"{path} is damaged" in refused("query", run, *QUERY)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/dev/zero", "", "nowhere/at/all"])
def test_names_that_can_be_no_folder_are_refused(name):
    with pytest.raises(Exception, match=r"run folder|holds no run"):
        open_run(Path(name))


HUGE = [
    ("search.evaluations", "1000000000000"),
    ("train.steps", "10000000000000"),
    ("train.epochs", "100000000"),
    ("train.minutes", "1e300"),
    ("train.keep_checkpoints", "100000"),
    ("train.decay_epochs", "1e308"),
    ("train.checkpoint_seconds", ".inf"),
    ("train.checkpoint_seconds", "1e300"),
    ("train.clip_norm", "1e400"),
    ("train.clip_value", "1e300"),
    ("train.learning_rate", ".nan"),
    ("train.guard.spike", "1e300"),
    ("train.drop_connect_stages", "1000000"),
    ("search.calibration_images", "1000000000"),
    ("search.validation_images", "true"),
    ("data", "[1]"),
    ("data", '""'),
    ("train", "null"),
    ("train.init", "''"),
    ("space", '"a\\0b"'),
    ("search.strategy", "x" * 5000),
]


@pytest.mark.parametrize(("key", "value"), HUGE, ids=lambda text: text[:30])
def test_values_that_no_training_can_have_are_named(tmp_path, key, value):
    message = refused("train", "digits", "--out", tmp_path / "r", "--set", f"{key}={value}")
    assert f"{key.replace('data', 'data.source')}: " in message
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "change", ["", "=1", "a" + ".b" * 5000 + "=1", "a.b.c.d=1", "data.x=1", "train.augment=3"]
)
def test_odd_changes_are_refused(tmp_path, change):
    refused("train", "digits", "--out", tmp_path / "r", "--set", change)


@pytest.mark.parametrize(
    "content",
    ["1: 2", "null: x", "true: y", "[1]: 2", "data: digits\n1: 2", "- a", "'': 1", "train: [1]"],
)
def test_run_files_of_other_shapes_are_refused(tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert str(file) in refused("train", file, "--out", tmp_path / "r")


def test_many_mistakes_are_told_shortly(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("".join(f"key{i}: {i}\n" for i in range(20_000)))
    assert "and 19992 more" in refused("train", file, "--out", tmp_path / "r")


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": None}, {"kernel": 7}, {"kernel": {"a": 1}}, {"kernel": [[[3]]]},
        {"kernel": [3.0] * 4}, {"kernel": [True] * 4}, {"kernel": [10**18] * 4},
        {"kernel": [None] * 4}, {"kernel": ["3"] * 4}, {"kernel": []}, {"kernel": [3] * 5000},
        {"resolution": [8]}, {"resolution": None}, {"resolution": {}}, {"depth": [[1]]},
        {"width": [{}]}, {"depth": [99] * 4}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_settings_files_that_spell_no_child_are_refused(tmp_path, changes):
    network = Network(SPACE, 10)
    file = tmp_path / "child.yaml"
    sound = network.settings(network.largest)
    file.write_text(yaml.safe_dump(sound))
    done("describe", SPACE, "--child", file)
    file.write_text(yaml.safe_dump({**sound, **changes}))
    refused("describe", SPACE, "--child", file)


def test_an_edited_seed_is_refused_by_all_that_use_the_weights(run, tmp_path):
    """The checkpoint knows the seed, whatever the run file says by now."""
    file = run / "run.yaml"
    file.write_text(file.read_text().replace("\nseed: 0 ", "\nseed: 3 "))
    before = snapshot(run)
    child = ",".join("0" * len(Network(SPACE, 10).dims))
    for words in (
        ("train", "--resume", "--out", run, "--set", "train.steps=7"),
        ("search", run, "--device", DEVICE),
        ("export", run, "--genotype", child, "--out", tmp_path / "child"),
        ("train-child", run, "--genotype", child, "--from", "inherited", "--out", tmp_path / "x"),
    ):
        message = refused(*words)
        assert "was trained with seed: 0, not 3" in message
        assert "Put seed: 0 back" in message
    assert snapshot(run) == before


def test_the_mark_of_torchrun_may_be_anything(run, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    os.mkfifo(run / ".torchrun")
    assert "holds a run already" in refused("train", "digits", "--out", run)
    (run / ".torchrun").unlink()
    (run / ".torchrun").write_bytes(b"\xff" * 50)
    assert "is no text file" in refused("train", "digits", "--out", run)


def test_a_hostile_log_costs_only_the_picture(run):
    rows = [
        '{"step": 1e999}', '{"step": 10' + "0" * 400 + "}", '{"step": -5, "gradient_norm": "x"}',
        '{"step": 3, "gradient_norm": NaN, "largest": null}', '{"step": 4, "event": 7}',
        '{"step": 4, "gradient_norm": [1], "event": "rolled back"}', "[" * 5000, "\\ud800", "",
        '{"step": true}', '{"step": 5, "gradient_norm": 1e308, "largest": -1e308}',
    ]  # fmt: skip
    (run / "log.jsonl").write_text("\n".join(rows * 3) + "\n")
    result = cli("train", "--resume", "--out", run, "--set", "train.steps=7")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("kind", ["pipe", "loop", "folder"])
def test_what_is_no_log_ends_a_training_before_it_begins(run, kind):
    (run / "log.jsonl").unlink()
    IN_PLACE[kind](run / "log.jsonl")
    words = ("train", "--resume", "--out", run, "--set", "train.steps=7")
    assert "log.jsonl" in refused(*words)
