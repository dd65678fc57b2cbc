"""Full disks, files in the way, two writers: what was there before survives, and it is said."""

import errno
import os
import resource
import subprocess
import sys
import threading
import time

from small_run import DEVICE, config, done, facts, refused, run_file, snapshot

from elastic_nas import pipeline
from elastic_nas.files import locked
from elastic_nas.runs import RunFolder


def limited(words, limit: int) -> subprocess.CompletedProcess[str]:
    """A command that can write no file beyond `limit` bytes, as on a full disk."""
    return subprocess.run(
        [sys.executable, "-m", "elastic_nas", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_a_file_size_limit_keeps_the_previous_checkpoint(run):
    before = snapshot(run)
    words = ["train", "--resume", "--out", run, "--set", "train.steps=8"]
    ended = limited(words, 100_000)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "cannot write" in ended.stderr
    assert "step-00000008.safetensors: File too large" in ended.stderr
    assert "untouched" in ended.stderr
    assert "train.keep_checkpoints=1" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert snapshot(run)["supernet.safetensors"] == before["supernet.safetensors"]
    assert snapshot(run).keys() == before.keys()
    done(*words, "--set", "train.keep_checkpoints=1")
    assert [path.name for path in (run / "checkpoints").glob("step*")] == [
        "step-00000008.safetensors"
    ]


# --- full disks, in process ----------------------------------------------------------------------


def full_disk(monkeypatch, after: int = 0) -> None:
    """Let every write to disk but the first `after` ones find no space."""
    original, calls = os.fsync, []

    def fsync(handle):
        calls.append(None)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_during_a_checkpoint_keeps_the_one_before(run, monkeypatch):
    before = snapshot(run)
    full_disk(monkeypatch, after=2 * 2)  # network.json and run.yaml, and each time their folder
    message = refused("train", "--resume", "--out", run, "--set", "train.steps=8")
    assert "step-00000008.safetensors: No space left on device" in message
    assert "free some space" in message
    assert snapshot(run)["supernet.safetensors"] == before["supernet.safetensors"]
    assert snapshot(run).keys() == before.keys()


def test_a_full_disk_during_search_and_export(run, tmp_path, monkeypatch, stopped_clock):
    before = snapshot(run)
    with monkeypatch.context() as patch:
        full_disk(patch, after=2)  # ties.json and its folder
        message = refused("search", run, "--device", DEVICE, "--evaluations", 12)
    assert "No space left on device" in message
    assert "rows before are safe" in message
    done("search", run, "--device", DEVICE)
    assert snapshot(run)["history.jsonl"].startswith(before["history.jsonl"])
    with monkeypatch.context() as patch:
        full_disk(patch, after=1)
        genotype = ",".join("0" * len(RunFolder(run).network.dims))
        out = tmp_path / "child"
        assert "No space left" in refused("export", run, "--genotype", genotype, "--out", out)
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if "child" in path.name]


def test_a_log_that_cannot_be_written(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "network.json").write_text("{}")
    (out / "log.jsonl").mkdir()
    message = refused("train", run_file(tmp_path / "run.yaml"), "--out", out)
    assert "log.jsonl: it is a folder, not a file" in message


def test_a_file_where_the_run_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        message = refused("train", run_file(tmp_path / "run.yaml"), "--out", place)
        assert f"cannot write to {place}" in message
        assert "--out" in message
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    assert ".lock" in refused("train", run_file(tmp_path / "r.yaml"), "--out", tmp_path / "run")


# --- two writers ----------------------------------------------------------------------------------


def test_a_second_writer_is_refused_at_once_and_readers_are_not(run, tmp_path, stopped_clock):
    before = snapshot(run)
    with locked(run):
        for words in (
            ["train", "--resume", "--out", run],
            ["search", run, "--device", DEVICE],
            ["profile", DEVICE, "--run", run],
            ["export", run, "--device", DEVICE, "--latency", "5ms", "--out", tmp_path / "c"],
        ):
            started_at = time.monotonic()
            assert "is in use" in refused(*words)
            assert time.monotonic() - started_at < 5
        facts("query", run, "--device", DEVICE, "--latency", "5ms")
    assert snapshot(run) == before
    done("search", run, "--device", DEVICE)


def test_two_threads_are_two_writers(tmp_path):
    errors = []

    def second():
        try:
            pipeline.train(config(), tmp_path / "run")
        except Exception as error:
            errors.append(str(error))

    with locked(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "is in use" in errors[0]
    assert not (tmp_path / "run").exists()  # nothing was written there


def test_training_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=pipeline.train, args=(config(), tmp_path / "run"))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "supernet.safetensors").exists()
