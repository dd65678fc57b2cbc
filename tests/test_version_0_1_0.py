"""A run that version 0.1.0 trained, tabulated and searched is read by this one.

The files are as that version wrote them, but for the weights, which were rounded before its search
so that they pack small.
"""

import json
import lzma
import shutil
from pathlib import Path

import pytest
from small_run import DEVICE, cli, done, facts, refused, table_of_here

from elastic_nas.runs import RunFolder, open_run
from elastic_nas.training.checkpoint import read_facts, read_progress

KEPT = Path(__file__).parent / "data" / "run_0_1_0"


@pytest.fixture
def old(tmp_path) -> RunFolder:
    """A copy of the run, unpacked."""
    folder = Path(shutil.copytree(KEPT, tmp_path / "old"))
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return RunFolder(folder)


@pytest.fixture
def measured(old) -> RunFolder:
    """The same with a table of this version."""
    table_of_here(old.network).write(old.table(DEVICE))
    return old


def test_its_table_must_be_measured_again(old):
    message = refused("query", old.path, "--device", DEVICE, "--latency", "5ms")
    assert "its schema is not 'elastic-latency/2'; measure it again" in message


def test_its_checkpoint_and_record_are_read(old):
    network = open_run(old.path).network
    assert (network.space_name, network.classes, len(old.labels)) == ("tiny:size=8", 10, 10)
    assert read_progress(old.weights, network).step == 6
    assert read_facts(old.weights)["schema"] == "elastic-supernet/1"


def test_it_is_queried_searched_on_and_exported(measured, tmp_path, stopped_clock):
    rows = [json.loads(line) for line in measured.history.read_text().splitlines()]
    found = facts("query", measured.path, "--device", DEVICE, "--latency", "5ms")
    assert found["accuracy"] == max(row["accuracy"] for row in rows)
    assert found["children_within_budgets"] == len(rows)
    result = cli("search", measured.path, "--device", DEVICE, "--evaluations", len(rows) + 1)
    assert result.exit_code == 0, result.stderr
    assert "left aside" not in result.stderr  # the same weights, images and settings
    assert len(measured.history.read_text().splitlines()) == len(rows) + 1
    done("export", measured.path, "--device", DEVICE, "--latency", "5ms", "--out", tmp_path / "c")
    done("verify", tmp_path / "c")


def test_its_training_goes_on(measured):
    result = cli("train", "--resume", "--out", measured.path, "--set", "train.steps=7")
    assert result.exit_code == 0, result.stderr
    assert "has no hash" in result.stderr
    assert "going on from step 6 of 7" in result.stderr
    facts_now = read_facts(measured.weights)
    assert (facts_now["schema"], facts_now["step"]) == ("elastic-supernet/2", 7)
