"""Atomic writes, strict readers, the lock."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from elastic_nas import files
from elastic_nas.errors import ConfigError, RunFolderError
from elastic_nas.files import (
    data_folder,
    locked,
    sha256_of,
    user_folder,
    write_atomic,
    write_json,
    writing,
)
from elastic_nas.outside import read_json


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_atomic(path, "ä")
    assert path.read_bytes() == b"\xc3\xa4"
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["c.txt"]


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)]
)
def test_permissions_follow_the_users_umask(tmp_path, umask, file, folder):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "new" / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == folder


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_whatever_fails_the_old_content_stays(tmp_path, monkeypatch, step, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises((RunFolderError, KeyboardInterrupt)) as caught:
        write_atomic(path, "new")
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value)
        assert "untouched" in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_writing_to_a_full_device_or_through_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFolderError, match="Is a directory"):
        write_atomic(tmp_path / "folder", "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_killed_writer_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import os, signal, pathlib\nfrom elastic_nas.files import write_atomic\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_atomic(pathlib.Path({str(path)!r}), 'new' * 100_000)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_json_is_strict(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": [1.5, None]})
    assert read_json(path) == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text()) == {"a": [1.5, None]}
    for content in (b"", b"{", b"NaN", b"[Infinity]", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"x\.json is not valid JSON"):
            read_json(path, ConfigError)
    assert read_json(tmp_path / "none.json", missing={}) == {}
    for place in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(RunFolderError, match="cannot read"):
            read_json(place)


def test_hashes_are_of_the_whole_file(tmp_path):
    (tmp_path / "x").write_bytes(b"a" * 3_000_000)
    before = sha256_of(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"a" * 2_999_999 + b"b")
    assert sha256_of(tmp_path / "x") != before
    (tmp_path / "x").write_bytes(b"")
    assert sha256_of(tmp_path / "x").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_a_lock_is_held_by_one(tmp_path):
    errors = []

    def other() -> None:
        try:
            with locked(tmp_path):
                errors.append("held twice")
        except RunFolderError as error:
            errors.append(str(error))

    with locked(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another elastic-nas process is writing there" in errors[0]
    with locked(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, pathlib\nfrom elastic_nas.files import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r})): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert os.listdir(tmp_path) == [".lock"]
    with locked(tmp_path):
        pass


def test_folders_made_for_nothing_are_removed_again(tmp_path):
    place = tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="failed"), locked(place):
        raise ValueError("failed")
    assert os.listdir(tmp_path) == []
    with locked(place):
        (place / "result").touch()
    assert sorted(os.listdir(place)) == [".lock", "result"]
    (tmp_path / "empty").mkdir()
    with locked(tmp_path / "empty"):  # it was there before
        pass
    assert (tmp_path / "empty").is_dir()


def test_where_data_lie(monkeypatch, tmp_path):
    assert list(data_folder("hardware_profiles").glob("*.yaml"))
    monkeypatch.setattr(files, "PACKAGE", tmp_path / "elastic_nas")
    assert data_folder("latency_tables") == tmp_path / "latency_tables"
    (tmp_path / "elastic_nas" / "latency_tables").mkdir(parents=True)
    assert data_folder("latency_tables") == tmp_path / "elastic_nas" / "latency_tables"
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path))
    assert user_folder() == tmp_path
    monkeypatch.delenv("ELASTIC_NAS_HOME")
    assert user_folder().name == "elastic-nas"


def test_one_process_at_a_time_writes_a_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "table.json")
    with writing(tmp_path / "table.json"):
        with (
            pytest.raises(RunFolderError, match="being written by another"),
            writing(tmp_path / "link"),
        ):
            pass
        with writing(tmp_path / "other.json"):
            pass
    with writing(tmp_path / "link"):
        assert not (tmp_path / "table.json").exists()
