"""A folder takes another's place in one step: killed anywhere, the old one or the new is there."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from elastic_nas.errors import RunFolderError
from elastic_nas.export import place
from elastic_nas.export.place import exchanged, repair, replacing
from elastic_nas.files import writing

OWN = ("manifest.json", "child.onnx")
STEPS = (
    ("mkdir", "yes"), ("exchanged", "yes"), ("rmtree", "yes"),
    ("mkdir", "no"), ("replace", "no"), ("rmtree", "no"),
)  # fmt: skip
"""What writes to the disk, where names can be exchanged and where they cannot."""

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from elastic_nas.export import place
folder, step, number, swaps, after = sys.argv[1:]
count = 0
def struck(function):
    def call(*args, **kwargs):
        global count
        count += 1
        if after == "after":
            result = function(*args, **kwargs)
        if count == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after == "after" else function(*args, **kwargs)
    return call
if swaps == "no":
    place.exchanged = lambda one, other: False
owner = {"mkdir": Path, "replace": os, "rmtree": shutil, "exchanged": place}[step]
setattr(owner, step, struck(getattr(owner, step)))
with place.replacing(Path(folder), ("manifest.json", "child.onnx")) as fresh:
    (fresh / "manifest.json").write_text("new")
print("done")
"""


def export(folder: Path) -> None:
    with writing(folder), replacing(folder, OWN) as fresh:
        (fresh / "manifest.json").write_text("next")


@pytest.mark.parametrize("after", ["before", "after"])
@pytest.mark.parametrize(("step", "swaps"), STEPS)
def test_killed_at_any_step_nothing_is_lost_or_left(tmp_path, step, after, swaps):
    kills = 0
    for number in (1, 2, 3):
        folder = tmp_path / str(number) / "child"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("old")
        words = [sys.executable, "-c", KILLED, str(folder), step, str(number), swaps, after]
        ended = subprocess.run(words, capture_output=True, check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        kills += 1
        repair(folder, OWN)
        assert (folder / "manifest.json").read_text() in ("old", "new")
        export(folder)
        assert os.listdir(folder.parent) == ["child"]
        assert (folder / "manifest.json").read_text() == "next"
    assert kills


def test_what_is_not_ours_is_left_alone(tmp_path):
    for name in (".child.settings", ".child.0123abcd", ".other.01234567"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("x")
    (tmp_path / ".child.abcdef01").mkdir()
    export(tmp_path / "child")
    assert sorted(os.listdir(tmp_path)) == [
        ".child.0123abcd", ".child.settings", ".other.01234567", "child",
    ]  # fmt: skip


def test_two_at_once_are_one_after_the_other(tmp_path):
    with writing(tmp_path / "child"), pytest.raises(RunFolderError, match="being written by"):
        export(tmp_path / "child")
    export(tmp_path / "child")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o007, 0o770)])
def test_permissions_follow_the_users_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        export(tmp_path / "child")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "child").stat().st_mode) == mode


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "child").symlink_to(tmp_path / "real")
    export(tmp_path / "child")
    assert (tmp_path / "child").is_symlink()
    assert (tmp_path / "real" / "manifest.json").read_text() == "next"
    assert sorted(os.listdir(tmp_path)) == ["child", "real"]


def test_names_are_exchanged_in_one_step_where_that_can_be_done(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if exchanged(tmp_path / "a", tmp_path / "b"):
        assert os.listdir(tmp_path / "a") == ["b"]
    assert not exchanged(tmp_path / "a", tmp_path / "none")
    monkeypatch.setattr(place.sys, "platform", "other")
    assert not exchanged(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
