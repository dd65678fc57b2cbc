"""Commands that a kit prints, carried out as printed; what cannot be harms no table."""

import platform
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest
from small_kit import command, environment_for, result_of, rewritten, unpacked
from small_run import done, refused

from elastic_nas.files import user_folder
from elastic_nas.latency import kit as kit_writer
from elastic_nas.latency import plan
from elastic_nas.measure import Protocol

DEVICE = """\
name: board
description: A board.
runtime: onnxruntime_cpu
threads: 1
precision: fp32
generic: false
cpu: {{arch: {arch}}}
"""


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A kit of a profile in a folder with a space in its name, measured here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "Draw", partial(plan.Draw, 3, 0))
    monkeypatch.setattr(kit_writer, "Protocol", partial(Protocol, rounds=1))
    Path("my boards").mkdir()
    Path("my boards/board.yaml").write_text(DEVICE.format(arch=platform.machine()))
    device = "my boards/board.yaml"
    said = done("kit", "--device", device, "--space", "tiny:size=8", "--classes", 7)
    folder = unpacked(Path("kit.zip"), tmp_path / "kit")
    ended = subprocess.run(
        command(folder),
        cwd=folder,
        env=environment_for(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder, said, ended.stdout


def printed(text):
    """The command of this package in a text, as its arguments."""
    (line,) = re.findall(r"elastic-nas (profile .*--import result\.json)", text)
    return shlex.split(line)


@pytest.mark.slow
def test_the_commands_that_are_printed_work(measured):
    folder, said, told = measured
    words = printed(told)
    assert printed(said) == printed((folder / "README.txt").read_text()) == words
    words[words.index("result.json")] = str(folder / "result.json")
    assert "table: " in done(*words)
    (table,) = (user_folder() / "latency_tables").glob("board.json")
    before = table.read_bytes()
    content = result_of(folder)
    for row in content["groups"][0]["rows"]:
        if row["name"] == "null":
            row["rounds"] = [[9e4] * 5 + [10, 10]] * 6
            for key in ("ms", "contended_p90", "n"):
                del row[key]
    rewritten(folder / "result.json", content)
    assert "the empty model takes" in refused(*words)
    rewritten(folder / "result.json", {**content, "visits": [{"date": None}]})
    assert "visits.0.date" in refused(*words)
    assert table.read_bytes() == before
