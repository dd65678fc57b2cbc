"""Kits whose plan or result was damaged on the device, places that cannot be written, signals."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_kit import command, copied, environment_for, result_of, rewritten, run, unpacked, written

from elastic_nas.errors import TableError
from elastic_nas.kit_check import (
    MAX_MS,
    MIN_MS,
    PLAN_SCHEMA,
    RESULT_SCHEMA,
    problem_of_plan,
    problem_of_result,
)
from elastic_nas.kit_files import KitError, parse, read_json
from elastic_nas.latency import kit_model, rows
from elastic_nas.latency.kit_result import read_result


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    return unpacked(written(folder / "kit.zip"), folder / "kit")


@pytest.fixture(scope="module")
def finished(kit, tmp_path_factory):
    folder = copied(kit, tmp_path_factory.mktemp("finished") / "kit")
    assert run(folder).returncode == 0
    return folder


@pytest.fixture
def done(finished, tmp_path):
    return copied(finished, tmp_path / "kit")


def plan_of(folder):
    return json.loads((folder / "plan.json").read_text())


def changed(content, *keys, to):
    copy = json.loads(json.dumps(content))
    place = copy
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return copy


def one_error(ended, *words):
    """The program ended with one message of its own."""
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("error: ") == 1
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    for word in words:
        assert word in ended.stderr


ODD = [
    (("device",), "a\nb"),
    (("network", "classes"), 0),
    (("runtime", "threads"), 0),
    (("runtime", "threads"), 10**9),
    (("runtime", "threads"), True),
    (("protocol", "blocks", "rounds"), 10**9),
    (("protocol", "blocks", "rounds"), 6.0),
    (("protocol", "children", "accepted_per_round"), -1),
    (("protocol", "children"), None),
    (("protocol",), []),
]
"""Of a plan and of a result alike."""

ODD_PLANS = [
    *ODD,
    (("blocks",), []),
    (("blocks", 1), 3),
    (("blocks", 1, "file"), "/etc/passwd"),
    (("blocks", 1, "file"), "models/../../secret"),
    (("blocks", 1, "file"), ""),
    (("blocks", 1, "name"), "a/b"),
    (("blocks", 1, "name"), "null"),
    (("blocks", 1, "input_shape"), [10**6, 10**6]),
    (("blocks", 1, "input_shape"), [3, -1, 4]),
    (("blocks", 1, "weight_bytes"), "many"),
    (("blocks", 1, "is"), None),
    (("children", 0, "is", "genotype"), "all"),
    (("children", 0, "is", "role"), "verify"),
    (("files",), {"../weights.bin": "0" * 64}),
    (("needs",), {"os": "1"}),
    (("needs", "numpy"), 1),
    (("session",), {"a": 1}),
    (("input_seed",), -1),
    (("max_rounds",), 0),
    (("anchors",), {}),
    (("more",), 1),
]


@pytest.mark.parametrize(("keys", "value"), ODD_PLANS)
def test_a_plan_that_cannot_be_is_refused_by_board_and_host_alike(kit, keys, value):
    plan = changed(plan_of(kit), *keys, to=value)
    assert problem_of_plan(plan)
    with pytest.raises(TableError):
        kit_model.checked_plan(plan)


def test_a_sound_plan_and_result_are_taken_by_both(finished):
    assert not problem_of_plan(plan_of(finished))
    kit_model.checked_plan(plan_of(finished))
    assert not problem_of_result(result_of(finished), plan_of(finished))
    assert read_result(finished / "result.json").complete


ROW = ("groups", 0, "rows", 1)
ODD_RESULTS = [
    *ODD,
    (("environment",), {}),
    (("environment", "cores"), 0),
    (("environment", "flags"), None),
    (("runtime",), None),
    (("visits",), {}),
    (("visits", 0, "device_s"), -1),
    (("visits", 0, "before"), 3),
    (("groups",), []),
    (("groups", 0, "rows"), []),
    (("groups", 0, "rounds"), 10**9),
    (("groups", 0, "part"), "anchors"),
    (("complete",), 1),
    ((*ROW, "rounds"), None),
    ((*ROW, "rounds", 0), [1, 2, 3]),
    ((*ROW, "rounds", 0), [2.0, 1.0, 2.0, 1.5, 3.0, 10, 11]),
    ((*ROW, "rounds", 0), [9.0, 1.0, 2.0, 3.0, 3.0, 10, 11]),
    ((*ROW, "rounds", 0), [1.0, 1.0, 1.0, 1.0, 1.0, 12, 11]),
    ((*ROW, "rounds", 0), [1.0, 1.0, 1.0, 1.0, 1.0, 10**12, 10**12]),
    ((*ROW, "rounds", 0), [1e-320, 1e-320, 1e-320, 1e-320, 1e-320, 10, 10]),
    ((*ROW, "rounds", 0), [None, None, None, None, None, 0, 40]),
    ((*ROW, "name"), 5),
    ((*ROW, "is"), {"genotype": [0]}),
    ((*ROW, "is"), {"block": {}, "role": "fit"}),
    ((*ROW, "is"), {"block": {"kind": "conv", "in_ch": -1}}),
]


@pytest.mark.parametrize(("keys", "value"), ODD_RESULTS)
def test_a_result_that_cannot_be_is_refused_by_board_and_host_alike(
    finished, tmp_path, keys, value
):
    content = changed(result_of(finished), *keys, to=value)
    assert problem_of_result(content, plan_of(finished))
    with pytest.raises(TableError):
        read_result(rewritten(tmp_path / "result.json", content))


MORE = ("stands there twice", "rounds come to", "same anchors", "visits.", "what it is", "fields")
"""What the host refuses beyond the board: figures told twice, unlike; dates; unknown blocks."""


def refusal(path):
    try:
        read_result(path)
    except TableError as error:
        return str(error)
    return ""


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_the_board_takes_the_host_can_read(finished, tmp_path_factory, data):
    """Any value at any place: what is no problem for one is none for the other."""
    copy, plan = result_of(finished), plan_of(finished)
    place = copy
    odd = st.sampled_from([None, [], {}, "", 0, -1, 1.5, 10**18, 1e308, True, "x" * 600, "a\nb"])
    for _ in range(7):
        keys = sorted(place) if isinstance(place, dict) else list(range(min(len(place), 8)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(odd)
            break
        place = place[key]
    path = rewritten(tmp_path_factory.mktemp("odd") / "result.json", copy)
    problem = problem_of_result(json.loads(path.read_text()), plan)
    refused = refusal(path)
    assert refused or not problem
    assert problem or not refused or any(words in refused for words in MORE), refused


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("blocks", 1, "file"), "/etc/passwd"),
        (("protocol", "blocks", "rounds"), 10**9),
        (("runtime", "provider"), None),
    ],
)
def test_a_damaged_plan_is_one_sentence(done, keys, value):
    rewritten(done / "plan.json", changed(plan_of(done), *keys, to=value))
    one_error(run(done), "plan.json is damaged", "unpack the kit again")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("environment",), {}),
        ((*ROW, "rounds"), "fast"),
        ((*ROW, "name"), "another"),
        (("groups", 0, "rows", 1, "is"), {"genotype": [0], "role": "fit"}),
    ],
)
def test_a_damaged_result_of_the_right_hash_is_one_sentence(done, keys, value):
    path = rewritten(done / "result.json", changed(result_of(done), *keys, to=value))
    before = path.read_bytes()
    one_error(run(done), "result.json is damaged", "move it away")
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1' + "0" * 5000 + "}", '{"a": NaN}', "\0"])
def test_what_no_kit_wrote_is_one_sentence(done, text):
    (done / "result.json").write_text(text)
    one_error(run(done), "is missing, damaged, edited")


def test_files_that_are_none_keep_nobody_waiting(done):
    (done / "result.json").unlink()
    os.mkfifo(done / "result.json")
    one_error(run(done), "result.json is missing, damaged")
    one_error(run(done, "--out", "/dev/zero"), "/dev/zero is missing, damaged")
    (done / "models" / "b0.onnx").unlink()
    os.mkfifo(done / "models" / "b0.onnx")
    one_error(run(done, "--out", "new.json"), "b0.onnx is missing or altered")


def test_a_model_may_not_lie_elsewhere(done, tmp_path):
    (done / "models" / "b0.onnx").replace(tmp_path / "b0.onnx")
    (done / "models" / "b0.onnx").symlink_to(tmp_path / "b0.onnx")
    one_error(run(done, "--out", "new.json"), "lies outside of the kit")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": 1e999}', "[" * 41 + "]" * 41, "1" * 30, "Infinity"]
)
def test_json_is_read_within_bounds(text):
    with pytest.raises(ValueError, match=r"twice|too large|deeply|digits|may stand"):
        parse(text)


def test_huge_files_are_not_read(tmp_path):
    with (tmp_path / "plan.json").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(KitError, match="is missing, damaged"):
        read_json(str(tmp_path / "plan.json"), PLAN_SCHEMA, "unpack it again")


def test_limits_are_those_of_a_latency_table():
    assert 0 < MIN_MS < MAX_MS < rows.MAX_MS * 0.9  # told at another speed, by at most a tenth
    assert kit_model.kit_check.MAX_SIZE == rows.MAX_DIMENSION
    assert kit_model.kit_check.MAX_CHOICES == rows.MAX_CHOICES
    assert {PLAN_SCHEMA, RESULT_SCHEMA} == {"elastic-kit/1", "elastic-kit-result/1"}


@pytest.mark.parametrize("text", ["nan", "-1", "-inf", "soon", ""])
def test_seconds_that_cannot_be_are_refused(done, text):
    ended = run(done, f"--max-seconds={text}")
    assert ended.returncode == 2
    assert "is no number of seconds, such as 600" in ended.stderr


def test_a_place_that_cannot_be_written_is_named_before_anything_is_measured(done):
    began = time.monotonic()
    one_error(run(done, "--out", "no/such/folder/result.json"), "there is no such folder", "--out")
    assert time.monotonic() - began < 60
    ended = run(done, "--out", "models")
    one_error(ended, "models is missing, damaged")


def test_a_full_disk_keeps_what_was_there(done):
    """A limit on the size of files stands for it."""
    before = (done / "result.json").read_bytes()
    ended = subprocess.run(
        command(done),
        cwd=done,
        env=environment_for(done),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        ),
    )
    assert ended.returncode == 1
    assert "cannot write result.json" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert (done / "result.json").read_bytes() == before
    assert not (done / "result.json.partial").exists()


SLOW = """
import time
open("reached", "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["kit_check.py", "machine.py", "kit_measuring.py", ""])
def test_a_signal_at_any_moment_is_one_line(done, number, place):
    """While the kit's own files are imported, and while it measures."""
    plan = plan_of(done)
    protocol = {part: {**p, "rounds": 10_000} for part, p in plan["protocol"].items()}
    rewritten(done / "plan.json", {**plan, "protocol": protocol})
    (done / "result.json").unlink()
    if place:
        source = done / "elastic_nas" / place
        source.write_text(
            source.read_text().replace("import annotations", "import annotations" + SLOW)
        )
    process = subprocess.Popen(
        command(done), cwd=done, env=environment_for(done), stderr=subprocess.PIPE, text=True
    )
    while not (done / ("reached" if place else "result.json")).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert said.count("stopped; the same command goes on from here.") == 1
    assert "Traceback" not in said
    if not place:
        assert not problem_of_result(result_of(done), plan_of(done))


def test_what_nobody_thought_of_is_one_sentence_and_a_file(done):
    """A library that fails in an unheard-of way stands for it."""
    (done / "elastic_nas" / "machine.py").write_text(
        "signature = None\n\ndef environment():\n    1 / 0\n"
    )
    ended = run(done)
    assert ended.returncode == 70
    assert ended.stderr.count("\n") == 1
    assert "ZeroDivisionError, which this kit does not expect" in ended.stderr
    assert "ZeroDivisionError" in (done / "run-error.txt").read_text()


@pytest.mark.parametrize("text", ["def", "raise ImportError('no fcntl')", "\0"])
def test_a_kit_that_cannot_be_imported_is_one_sentence(done, text):
    (done / "elastic_nas" / "kit_check.py").write_text(text)
    ended = run(done)
    one_error(ended)


def test_the_program_needs_nothing_of_this_package(done):
    ended = run(done, python=sys.executable)
    assert ended.returncode == 0
