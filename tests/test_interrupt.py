"""Ctrl-C and SIGTERM at any moment: nothing is lost, and the same work goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from small_run import (
    DEVICE,
    cli,
    done,
    facts,
    refused,
    run_file,
    snapshot,
)

from elastic_nas import delivery
from elastic_nas.data import dataset
from elastic_nas.export import artefact, place
from elastic_nas.training import evaluation
from elastic_nas.training.trainer import Trainer

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def _signals_stay_as_they_were():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def strike(monkeypatch, owner, name, number, call: int = 1) -> None:
    """Send this process a signal when `owner.name` is called for the `call`-th time."""
    original, calls = getattr(owner, name), []

    def struck(*args, **kwargs):
        calls.append(None)
        if len(calls) == call:
            signal.raise_signal(number)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, struck)


def interrupted(*arguments: object) -> str:
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr
    assert result.stderr.count("interrupted.") == 1
    return result.stderr


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "supernet.safetensors")


def same(one, other) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- training ---------------------------------------------------------------------------------


@SIGNALS
def test_an_interrupted_training_goes_on_bit_for_bit(made_run, tmp_path, monkeypatch, number):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        strike(patch, Trainer, "step", number, call=3)
        said = interrupted("train", run_file(tmp_path / "run.yaml"), "--out", out)
    hint = f"elastic-nas train --out {out} --resume"
    assert f"Go on with: {hint}" in said
    assert "step 3" in cli(*hint.split()[1:]).stderr
    assert same(out, made_run)


def test_two_interrupts_lose_nothing(made_run, tmp_path, monkeypatch):
    out = tmp_path / "run"
    for call in (2, 3):
        with monkeypatch.context() as patch:
            strike(patch, Trainer, "step", signal.SIGTERM, call)
            words = ["--resume"] if out.exists() else [run_file(tmp_path / "run.yaml")]
            interrupted("train", *words, "--out", out)
    done("train", "--resume", "--out", out)
    assert same(out, made_run)


@SIGNALS
def test_interrupted_before_training_the_same_command_starts_again(tmp_path, monkeypatch, number):
    words = ("train", run_file(tmp_path / "run.yaml"), "--out", tmp_path / "new" / "run")
    with monkeypatch.context() as patch:
        strike(patch, dataset, "_digits", number)
        assert "the same command starts again" in interrupted(*words)
    assert not (tmp_path / "new").exists()
    done(*words)


def test_interrupted_before_the_first_checkpoint_resume_starts_anew(
    made_run, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", lambda *_: signal.default_int_handler(2, None))
        said = interrupted("train", run_file(tmp_path / "run.yaml"), "--out", out)
    assert f"train --out {out} --resume" in said
    done("train", "--out", out, "--resume")
    assert same(out, made_run)


def test_resuming_a_finished_run_changes_nothing(run):
    before = snapshot(run)
    result = cli("train", "--resume", "--out", run)
    assert result.exit_code == 0
    assert "nothing to do: all 6 steps are done" in result.stderr
    assert snapshot(run) == before


def test_a_longer_training_goes_on_and_its_old_figures_are_not_served(run):
    query = ("query", run, "--device", DEVICE, "--latency", "5ms")
    known = facts(*query)["children_within_budgets"]
    result = cli("train", "--resume", "--out", run, "--set", "train.steps=8")
    assert result.exit_code == 0
    assert "going on from step 6 of 8" in result.stderr
    assert "steps: 8" in (run / "run.yaml").read_text()
    message = refused(*query)
    assert "older weights" in message
    assert f"elastic-nas search {run}" in message
    assert "older weights" in refused("export", *query[1:])
    searched = cli("search", run, "--device", DEVICE)
    assert f"{known} rows of other weights" in searched.stderr
    assert facts(*query)["children_within_budgets"] == known


def test_a_shorter_training_is_refused(run):
    before = snapshot(run)
    message = refused("train", "--resume", "--out", run, "--set", "train.steps=4")
    assert "step 6 of 6" in message
    assert "ask for more" in message
    assert snapshot(run) == before


def test_epochs_extend_in_all(run):
    result = cli(
        "train", "--resume", "--out", run, "--epochs", "1", "--set", "train.batch_size=128"
    )
    assert "going on from step 6 of 9" in result.stderr


def test_what_cannot_be_resumed_is_refused_untouched(run, tmp_path):
    before = snapshot(run)
    for words, said in (
        (["--data", "photos"], "no folder of images"),
        (["--set", "seed=4"], "test images would mix"),
        (["--data", tmp_path], "holds one folder alone"),
        (["--space", "tiny:size=16"], "use the space that it was trained with"),
        (["--epochs", "2", "--minutes", "3"], "give only one"),
    ):
        message = refused("train", "--resume", "--out", run, *words)
        assert said in message or "test images would mix" in message
        assert snapshot(run) == before


def test_a_training_does_not_overwrite_what_it_did_not_write(run, tmp_path):
    before = snapshot(run)
    assert "--resume" in refused("train", "digits", "--out", run)
    assert snapshot(run) == before
    own = tmp_path / "own"
    file = run_file(own / "run.yaml")
    assert "holds 'run.yaml'" in refused("train", file, "--out", own)
    assert os.listdir(own) == ["run.yaml"]


# --- the other stages ---------------------------------------------------------------------------


@SIGNALS
def test_an_interrupted_search_keeps_what_it_knows(run, monkeypatch, number):
    uninterrupted = (run / "history.jsonl").read_text().splitlines()
    (run / "history.jsonl").unlink()
    with monkeypatch.context() as patch:
        strike(patch, evaluation.Judge, "evaluate", number, call=4)
        said = interrupted("search", run, "--device", DEVICE)
    assert "the same command goes on" in said
    assert len((run / "history.jsonl").read_text().splitlines()) == 3
    done("search", run, "--device", DEVICE)
    rows = (run / "history.jsonl").read_text().splitlines()
    assert [row.split(', "n"')[0] for row in rows] == [
        row.split(', "n"')[0] for row in uninterrupted
    ]


@SIGNALS
def test_an_interrupted_export_leaves_nothing(run, tmp_path, monkeypatch, stopped_clock, number):
    out = tmp_path / "exported" / "child"
    words = ("export", run, "--device", DEVICE, "--latency", "5ms", "--out", out)
    for owner, name, call in (
        (delivery, "child_logits", 1),
        (artefact, "write_atomic", 3),
        (place, "_take_place", 1),
    ):
        with monkeypatch.context() as patch:
            strike(patch, owner, name, number, call)
            assert "the same command starts again" in interrupted(*words)
        assert not out.exists()
        assert not out.parent.exists() or not any(out.parent.iterdir())
    done(*words)
    before = snapshot(out)
    with monkeypatch.context() as patch:  # between the two renames of a system without exchange
        patch.setattr(place, "exchanged", lambda *_: False)
        strike(patch, os, "replace", number, call=4 + 1 + 2)
        interrupted(*words)
    assert snapshot(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["child"]


def test_an_interrupted_profile_goes_on(run, monkeypatch):
    from elastic_nas.latency import profile

    path = run / "latency_tables" / f"{DEVICE}.json"
    whole = path.read_text()

    def extend(table, network, bench, save, draw):
        save(table)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(profile, "extend", extend)
    assert "the same command goes on" in interrupted("profile", DEVICE, "--run", run)
    assert path.read_text() == whole


# --- real processes -----------------------------------------------------------------------------

LONG = {"steps": 100_000, "batch_size": 8}


def started(*words: object) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal would start it."""
    command = [sys.executable, "-m", "elastic_nas", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_in_a_terminal_ends_training_and_its_workers(tmp_path, workers):
    out = tmp_path / "run"
    file = run_file(tmp_path / "run.yaml", **LONG, workers=workers)
    process = started("train", file, "--out", out)
    wait_for(out / "log.jsonl")
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the whole group
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert "Traceback" not in stderr
    assert stderr.count("stopping after this step") == 1
    assert stderr.endswith(f"elastic-nas train --out {out} --resume\n")
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(process.pid, 0)


def test_sigterm_after_the_first_line(tmp_path):
    process = started("train", run_file(tmp_path / "run.yaml", **LONG), "--out", tmp_path / "run")
    assert process.stderr is not None
    first = process.stderr.readline()
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    # Where the signal comes while native code runs Python code (an import of torch's), Python
    # remembers it and ends by SIGINT in place of our status; a shell sees 130 both times.
    assert process.returncode in (130, -signal.SIGINT), first + stderr
    assert "Traceback" not in stderr
    assert "interrupted." in stderr
