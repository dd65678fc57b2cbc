"""Damaged runs, checkpoints and exported folders: named, refused, never executed, never lost."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from small_run import DEVICE, SPACE, cli, done, facts, refused, run_file, snapshot

from elastic_nas import verification
from elastic_nas.errors import CheckpointError, UnknownName
from elastic_nas.files import sha256_of
from elastic_nas.network import Network
from elastic_nas.training.checkpoint import read_progress

NETWORK = Network(SPACE, 10)
BUDGET = ("--device", DEVICE, "--latency", "5ms")


# --- damaged runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("network.json", ["", "{", "[]", "{}", '{"schema": "elastic-run/1"}', "\x00", "9" * 9999]),
        ("ties.json", ["", "{", "[]", '{"weights": 3}', "[" * 99_999]),
    ],
)
def test_damaged_records_of_a_run_are_named(run, name, contents):
    path = run / name
    record = json.loads(path.read_text())
    for content in [*contents, *(json.dumps({**record, key: 7}) for key in record)]:
        path.write_text(content)
        assert str(path) in refused("query", run, *BUDGET)
    path.write_text(json.dumps(record))
    facts("query", run, *BUDGET)


def test_a_damaged_run_file_is_named(run, tmp_path):
    (run / "run.yaml").write_text("train: {steps: }}")
    before = snapshot(run)
    for words in (
        ("train", "--resume", "--out", run),
        ("search", run, "--device", DEVICE),
        ("export", run, *BUDGET, "--out", tmp_path / "child"),
    ):
        assert f"{run / 'run.yaml'} is not valid YAML" in refused(*words)
    assert snapshot(run) == before


def test_a_history_damaged_in_the_middle_is_refused_and_a_torn_end_is_not(run):
    path = run / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], lines[-1][:50]]))
    assert facts("query", run, *BUDGET)["children_within_budgets"] == len(lines) - 1
    done("search", run, "--device", DEVICE)
    assert facts("query", run, *BUDGET)["children_within_budgets"] == len(lines)
    path.write_text("".join([lines[0], lines[1][:50] + "\n", *lines[2:]]))
    for words in (("query", run, *BUDGET), ("search", run, "--device", DEVICE)):
        message = refused(*words)
        assert f"line 2 of {path} is damaged" in message
        assert "delete this line" in message
    path.unlink()
    assert "run elastic-nas search first" in refused("query", run, *BUDGET)


def test_nothing_searched_yet(run):
    (run / "ties.json").unlink()
    assert f"elastic-nas search {run}" in refused("query", run, *BUDGET)


@pytest.mark.parametrize("content", ["[]", "{", '{"weights": "%s", "children": {"a": {"b": 1}}}'])
def test_a_damaged_memory_of_exports_costs_only_the_picture(run, content):
    weights = sha256_of(run / "supernet.safetensors")
    (run / "fronts" / f"{DEVICE}.exported.json").write_text(content.replace("%s", weights))
    result = cli("search", run, "--device", DEVICE)
    assert result.exit_code == 0
    assert "exported.json is damaged" in result.stderr


def test_the_picture_forgets_children_of_older_weights(run, tmp_path, stopped_clock):
    done("export", run, *BUDGET, "--out", tmp_path / "one")
    path = run / "fronts" / f"{DEVICE}.exported.json"
    assert len(json.loads(path.read_text())["children"]) == 1
    done("export", run, "--device", DEVICE, "--latency", "6ms", "--out", tmp_path / "two")
    assert len(json.loads(path.read_text())["children"]) == 2
    path.write_text(path.read_text().replace('"weights": "', '"weights": "x'))
    done("export", run, *BUDGET, "--out", tmp_path / "one")
    assert len(json.loads(path.read_text())["children"]) == 1


# --- checkpoints ------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def header(metadata: object) -> bytes:
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    data = json.dumps({"__metadata__": {"elastic_nas": text}}).encode()
    return struct.pack("<Q", len(data)) + data


def sound(**changes: object) -> bytes:
    fields = {"schema": "elastic-supernet/1", "identity": NETWORK.identity, "classes": 10}
    fields |= {"space": SPACE, "version": "0.1.0", "torch": "2.13.0"}
    return header({**fields, "step": 1, "steps": 2, **changes})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged or no checkpoint"),
        (b"PK\x03\x04" + b"\0" * 100, "is damaged or no checkpoint"),
        (struct.pack("<Q", 2**62) + b"{" * 50, "is damaged or no checkpoint"),
        (header("[" * 100_000), "is damaged or no checkpoint"),
        (header("9" * 10_000), "is damaged or no checkpoint"),
        (header("null"), "is damaged or no checkpoint"),
        (header({"schema": "elastic-supernet/9"}), "not of schema elastic-supernet/2"),
        (sound(schema="elastic-supernet/2"), "is damaged or no checkpoint"),
        (header({"schema": "elastic-supernet/1"}), "space: it is missing"),
        (sound(step=5), "it says step 5 of 2"),
        (sound(step="1"), "step: must be a valid integer, got '1'"),
        (sound(), "holds other weights"),
        (sound(classes=11), "11 classes"),
    ],
)
def test_checkpoints_that_cannot_be_used(run, tmp_path, content, said):
    shutil.rmtree(run / "checkpoints")
    (run / "supernet.safetensors").write_bytes(content)
    before = snapshot(run)
    genotype = ",".join("0" * len(NETWORK.dims))
    for words in (
        ("search", run, "--device", DEVICE),
        ("export", run, "--genotype", genotype, "--out", tmp_path / "child"),
        ("train", "--resume", "--out", run),
    ):
        message = refused(*words)
        assert said in message
        assert str(run / "supernet.safetensors") in message
    assert snapshot(run) == before


def test_a_damaged_checkpoint_of_a_finished_run_is_named_with_the_way_back(run):
    path = run / "supernet.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    message = refused("search", run, "--device", DEVICE)
    assert f"{path} is damaged" in message
    assert "train --out RUN --resume" in message
    result = cli("train", "--resume", "--out", run)
    assert result.exit_code == 0
    assert f"warning: {path} is damaged" in result.stderr
    assert "step-00000006.safetensors, step 6: no steps are lost" in result.stderr
    assert "nothing to do" in result.stderr
    assert path.read_bytes() == whole
    done("search", run, "--device", DEVICE)


def test_lost_steps_are_trained_again_to_the_same_bits(tmp_path):
    out, last = tmp_path / "run", tmp_path / "run" / "checkpoints" / "step-00000006.safetensors"
    words = ("train", run_file(tmp_path / "r.yaml", checkpoint_seconds=1e-9), "--out", out)
    done(*words)
    whole = (out / "supernet.safetensors").read_bytes()
    last.write_bytes(b"PK")  # and with it its other names
    (out / "supernet.safetensors").unlink()
    assert "holds a run already" in refused(*words)
    said = cli("train", "--resume", "--out", out).stderr
    assert f"warning: {out / 'supernet.safetensors'} is missing. {last} is damaged" in said
    assert "step-00000005.safetensors, step 5: 1 step is lost" in said
    assert "going on from step 5 of 6" in said
    assert (out / "supernet.safetensors").read_bytes() == whole


def test_a_truncated_checkpoint_and_one_of_another_space(run):
    path = run / "supernet.safetensors"
    whole = path.read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "nothing of it was used" in refused("search", run, "--device", DEVICE)
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="not for 'tiny:size=16'"):
        read_progress(path, Network("tiny:size=16", 10))
    path.unlink()
    assert "there is no checkpoint" in refused("search", run, "--device", DEVICE)


def test_a_pickle_in_disguise_is_refused_and_not_executed(run, tmp_path, stopped_clock):
    evil, proof = Evil(), tmp_path / "executed"
    evil.path = str(proof)
    pickle.loads(pickle.dumps(evil))
    assert proof.exists()  # it would, if it were loaded
    proof.unlink()
    done("export", run, *BUDGET, "--out", tmp_path / "child")
    shutil.rmtree(run / "checkpoints")
    (run / "supernet.safetensors").write_bytes(pickle.dumps(evil))
    assert "no checkpoint" in refused("search", run, "--device", DEVICE)
    assert "no checkpoint" in refused("train", "--resume", "--out", run)
    with (tmp_path / "child" / "test_data" / "input_0.npy").open("wb") as file:
        np.save(file, np.array([evil], dtype=object), allow_pickle=True)
    rehash(tmp_path / "child", "test_data/input_0.npy")
    assert "is no array of uint8" in refused("verify", tmp_path / "child")
    assert not proof.exists()


# --- exported folders -------------------------------------------------------------------------


def rehash(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = sha256_of(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def child(run, tmp_path, stopped_clock) -> Path:
    done("export", run, *BUDGET, "--out", tmp_path / "child")
    return tmp_path / "child"


def test_an_earlier_export_is_replaced_and_nothing_else_is(run, child):
    before = snapshot(child)
    done("export", run, *BUDGET, "--out", child)
    assert snapshot(child).keys() == before.keys()
    (child / "notes.txt").write_text("mine")
    before = snapshot(child)
    message = refused("export", run, *BUDGET, "--out", child)
    assert "'notes.txt'" in message
    assert "--out" in message
    assert snapshot(child) == before
    assert [path.name for path in child.parent.iterdir()].count("child") == 1
    assert not list(child.parent.glob(".child*"))


@pytest.mark.parametrize("content", ["{}", '{"name": "a web page", "icons": []}', "{"])
def test_a_folder_of_other_things_is_not_replaced(run, tmp_path, content):
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text(content)
    before = snapshot(other)
    for place in (other, tmp_path):
        message = refused("export", run, *BUDGET, "--out", place)
        assert "is not empty and holds no earlier export" in message
    assert snapshot(other) == before
    message = refused("export", run, *BUDGET, "--out", other / "manifest.json")
    assert "is a file, not a folder" in message
    message = refused("export", run, *BUDGET, "--out", other / "manifest.json" / "x")
    assert "cannot write" in message


def edit(child: Path, **changes: object) -> None:
    path = child / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_verify_finds_what_was_changed(child):
    (child.parent / "x").write_text("outside")
    manifest = json.loads((child / "manifest.json").read_text())
    hashes = manifest["sha256"]
    for name in hashes:
        content = (child / name).read_bytes()
        (child / name).write_bytes(content[:-1])
        assert f"{child / name} was changed" in refused("verify", child)
        (child / name).unlink()
        assert f"{child / name} is missing" in refused("verify", child)
        (child / name).write_bytes(content)
    for changes, said in (
        ({"sha256": {**hashes, "../x": "0" * 64}}, "names beyond an export's own files: ['../x']"),
        ({"sha256": {**hashes, "/etc/passwd": "0" * 64}}, "['/etc/passwd']"),
        ({"sha256": {}}, "is damaged"),
        ({"sha256": []}, "see 'sha256'"),
        ({"latency": {}}, "is damaged"),
        ({"accuracy": None}, "see 'accuracy'"),
        ({"resolution": "8"}, "see 'resolution'"),
        ({"schema": "elastic-child/9"}, "is not of schema"),
    ):
        edit(child, **{**manifest, **changes})
        message = refused("verify", child)
        assert said in message
        assert "export again" in message
    edit(child, **manifest)
    done("verify", child)
    (child / "manifest.json").write_text('{"schema": ')
    assert "is not valid JSON" in refused("verify", child)
    (child / "manifest.json").unlink()
    assert "holds no manifest.json" in refused("verify", child)


def test_verify_refuses_other_files_in_place_of_ours(child):
    (child / "child.onnx").write_bytes(b"no model")
    rehash(child, "child.onnx")
    assert "child.onnx was not run" in refused("verify", child)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3, 5, 5), np.uint8), "has the shape (2, 3, 5, 5), not"),
        (np.zeros((0, 3, 8, 8), np.uint8), "has the shape (0, 3, 8, 8), not"),
        (np.zeros((64, 3, 8, 8), np.uint8), "the file differs from the child"),
        (np.zeros(7, np.complex64), "is no array of uint8"),
    ],
)
def test_verify_refuses_other_images(child, array, said):
    np.save(child / "test_data" / "input_0.npy", array)
    rehash(child, "test_data/input_0.npy")
    assert said in refused("verify", child)


def test_verify_of_a_device_that_is_not_known_here(child, monkeypatch):
    def unknown(name):
        raise UnknownName(f"no device called {name!r}.")

    monkeypatch.setattr(verification, "named_device", unknown)
    checked = facts("verify", child)
    assert f"no hardware profile {DEVICE!r} here" in checked["latency"]["note"]
    assert "no device called" in refused("verify", child, "--device", "their-phone")
