"""The kit on the device: measured, stopped, killed, resumed, disturbed, damaged."""

import ast
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_kit import (
    command,
    copied,
    environment_for,
    result_of,
    rewritten,
    run,
    unpacked,
    written,
)

from elastic_nas import kit_device, kit_measuring
from elastic_nas.files import PACKAGE
from elastic_nas.kit_device import libraries, load
from elastic_nas.kit_figures import (
    digest,
    grouped,
    import_command,
    merged,
    round_of,
    speeds,
    visits_left,
)
from elastic_nas.kit_files import KitError
from elastic_nas.measure import Protocol, Timing

CARRIED = (
    "kit_run",
    "kit_device",
    "kit_figures",
    "kit_check",
    "kit_files",
    "kit_measuring",
    "measure",
    "machine",
)


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    return unpacked(written(folder / "kit.zip"), folder / "kit")


@pytest.fixture(scope="module")
def finished(kit, tmp_path_factory):
    folder = copied(kit, tmp_path_factory.mktemp("finished") / "kit")
    ended = run(folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def fresh(kit, tmp_path):
    return copied(kit, tmp_path / "kit")


@pytest.fixture
def done(finished, tmp_path):
    return copied(finished, tmp_path / "kit")


def rows_of(folder):
    return {
        (number, row["name"]): row["rounds"]
        for number, group in enumerate(result_of(folder)["groups"])
        for row in group["rows"]
    }


def planned(folder, **changes):
    """Change the plan, with a hash that is right."""
    plan = json.loads((folder / "plan.json").read_text())
    rewritten(folder / "plan.json", {**plan, **changes})
    return plan


@pytest.mark.parametrize("name", CARRIED)
def test_the_syntax_is_that_of_python_3_8(name):
    ast.parse((PACKAGE / f"{name}.py").read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("name", CARRIED)
def test_nothing_but_what_a_device_has_is_imported(name):
    known = set(sys.stdlib_module_names) | {"numpy", "onnxruntime"}
    known |= {f"elastic_nas.{carried}" for carried in CARRIED}
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= known
        elif isinstance(node, ast.ImportFrom):
            assert node.module in known


def test_a_finished_result(finished):
    result = result_of(finished)
    plan = json.loads((finished / "plan.json").read_text())
    assert result["sha256"] == digest(result)
    assert result["complete"] is True
    assert result["plan"] == plan["sha256"]
    measured = {row["name"] for group in result["groups"] for row in group["rows"]}
    assert measured == {m["name"] for p in ("anchors", "blocks", "children") for m in plan[p]}
    for group in result["groups"]:
        for row in group["rows"]:
            assert len(row["rounds"]) >= group["rounds"]
            assert row["ms"] > 0
    assert result["runtime"]["version"] == result["libraries"]["onnxruntime"]
    assert {"arch", "cpu", "cores"} <= result["environment"].keys()
    (visit,) = result["visits"]
    assert 0 < visit["device_s"] <= visit["seconds"]
    assert "load" in visit["before"]


def test_a_finished_kit_has_nothing_to_do(done):
    before = rows_of(done)
    assert run(done).returncode == 0
    assert rows_of(done) == before


def test_time_is_kept_and_the_same_command_goes_on(fresh):
    began = time.monotonic()
    ended = run(fresh, "--max-seconds", "0.3")
    assert ended.returncode == 0
    assert time.monotonic() - began < 20
    assert "0.3 seconds are over" in ended.stderr
    assert "The same command goes on" in ended.stderr
    before = rows_of(fresh) if (fresh / "result.json").exists() else {}
    again = run(fresh)
    assert again.returncode == 0
    after = rows_of(fresh)
    kept = all(after[key][: len(rounds)] == rounds for key, rounds in before.items())
    assert kept or "models again: the machine was busy" in again.stderr
    assert result_of(fresh)["complete"] is True


def test_too_little_time_is_said(fresh):
    ended = run(fresh, "--max-seconds", "0")
    assert ended.returncode == 0
    assert "too few for one round" in ended.stderr
    assert not (fresh / "result.json").exists()


def started(folder: Path, python: str = sys.executable) -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, python=python),
        cwd=folder,
        env=environment_for(folder),
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(2000):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    pytest.fail(f"{path} never came")


@pytest.fixture
def endless(fresh):
    """A kit with so many rounds that it will not finish."""
    plan = json.loads((fresh / "plan.json").read_text())
    protocol = {part: {**p, "rounds": 10_000} for part, p in plan["protocol"].items()}
    planned(fresh, protocol=protocol)
    return fresh


def test_a_kill_loses_a_round_at_most(endless):
    process = started(endless)
    wait_for(endless / "result.json", process)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = rows_of(endless)
    assert any(before.values())
    ended = run(endless, "--max-seconds", "1")
    assert ended.returncode == 0, ended.stderr
    after = rows_of(endless)
    assert all(after[key][: len(rounds)] == rounds for key, rounds in before.items())
    assert sum(map(len, after.values())) > sum(map(len, before.values()))
    assert len(result_of(endless)["visits"]) == 2


def test_an_interruption_is_no_traceback(endless):
    process = started(endless)
    wait_for(endless / "result.json", process)
    process.send_signal(signal.SIGINT)
    assert "the same command goes on from here" in process.communicate()[1]
    assert process.returncode == 130
    assert rows_of(endless)


def test_two_at_once_would_disturb_each_other(endless, tmp_path):
    second = copied(endless, tmp_path / "second")
    process = started(endless)
    try:
        wait_for(endless / "result.json", process)
        for folder in (endless, second):  # unpacked once, unpacked twice
            environment = {**environment_for(endless)}
            ended = subprocess.run(
                command(folder), env=environment, capture_output=True, text=True, check=False
            )
            assert ended.returncode == 1
            assert f"process {process.pid} is measuring a kit on this machine" in ended.stderr
    finally:
        process.kill()
        process.communicate()


def altered(folder, **changes):
    return rewritten(folder / "result.json", {**result_of(folder), **changes})


def test_a_result_of_another_kit_machine_or_runtime_is_left_alone(done):
    result = result_of(done)
    other = {**result["environment"], "cpu": "another"}
    for changes, what in (
        ({"plan": "0" * 64}, "kit"),
        ({"runtime": {**result["runtime"], "version": "0.1"}}, "runtime"),
        ({"environment": other}, "machine"),
    ):
        content = altered(done, **{**result, **changes}).read_bytes()
        ended = run(done)
        assert ended.returncode == 1
        assert f"was measured with another {what}: move it away" in ended.stderr
        assert (done / "result.json").read_bytes() == content


@pytest.mark.parametrize("damage", ["truncated", "edited", "not a file", "a list"])
def test_a_damaged_result_is_left_alone(done, damage):
    path = done / "result.json"
    text = path.read_text()
    if damage == "not a file":
        path.unlink()
        path.mkdir()
    else:
        cut = {"truncated": text[:-100], "edited": text.replace("1", "2"), "a list": "[]"}
        path.write_text(cut[damage])
    ended = run(done)
    assert ended.returncode == 1
    assert "is missing, damaged, edited" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["plan.json", "models/b0.onnx", "models/weights.bin"])
def test_an_altered_kit_is_refused(fresh, name):
    content = bytearray((fresh / name).read_bytes())
    content[len(content) // 2] ^= 1
    (fresh / name).write_bytes(content)
    ended = run(fresh)
    assert ended.returncode == 1
    assert "unpack the kit again" in ended.stderr
    assert "Traceback" not in ended.stderr
    (fresh / name).unlink()
    assert "unpack the kit again" in run(fresh).stderr


def test_a_provider_that_is_not_there_is_no_silent_fallback(fresh):
    plan = json.loads((fresh / "plan.json").read_text())
    planned(fresh, runtime={**plan["runtime"], "provider": "CUDAExecutionProvider"})
    ended = run(fresh)
    assert ended.returncode == 1
    assert "CUDAExecutionProvider" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (fresh / "result.json").exists()


def test_a_model_that_cannot_run_is_named(kit):
    plan = json.loads((kit / "plan.json").read_text())
    model = {**plan["blocks"][1], "input_shape": [99, 4, 4]}
    with pytest.raises(KitError, match=r"does not run models/b0.onnx, .*\"kind\": \"conv\""):
        load(model, plan, str(kit))


def test_libraries_that_are_missing_or_old_are_named():
    assert libraries({"numpy": "1.17"})
    with pytest.raises(KitError, match=r"numpy .* is too old, 99.0 is needed: python -m pip"):
        libraries({"numpy": "99.0"})
    with pytest.raises(KitError, match="no_such_library cannot be imported"):
        libraries({"no_such_library": "1"})


@pytest.mark.parametrize(
    ("numpy", "onnxruntime", "sound"),
    [("2.1.0", "1.16.3", False), ("1.26.4", "1.16.3", True), ("2.1.0", "1.19.0", True)],
)
def test_an_old_onnxruntime_with_a_new_numpy_is_named(monkeypatch, numpy, onnxruntime, sound):
    versions = {"numpy": numpy, "onnxruntime": onnxruntime}
    fake = {name: SimpleNamespace(__version__=version) for name, version in versions.items()}
    monkeypatch.setattr(kit_device.importlib, "import_module", fake.__getitem__)
    needs = {"numpy": "1.21", "onnxruntime": "1.16.3"}
    if sound:
        assert libraries(needs) == versions
    else:
        with pytest.raises(KitError, match=r"1\.16\.3 does not run with numpy 2\.1\.0: .*numpy<2"):
            libraries(needs)
    fake["onnxruntime"].__version__ = "1.16"
    with pytest.raises(KitError, match=r"1\.16 is too old, 1\.16\.3 is needed"):
        libraries(needs)


def test_a_full_disk_is_one_line(fresh):
    ended = run(fresh, "--out", "no/such/folder/result.json")
    assert ended.returncode == 1
    assert "error: " in ended.stderr
    assert "Traceback" not in ended.stderr


def timing(ms, n=10, accept=0.5, contended=9.0):
    return Timing(ms, ms * 0.9, ms, ms * 1.1, contended, n, accept)


def test_rounds_are_merged_by_medians():
    rounds = [round_of(timing(ms, contended=c), 40) for ms, c in ((1, 5), (3, 7), (2, 6))]
    whole = merged(rounds, Protocol())
    assert (whole.ms, whole.p50, whole.contended_p90, whole.n) == (2, 2, 6, 30)
    assert whole.accept == 0.5
    assert whole.round_ms == [1, 3, 2]
    assert (whole.p10, whole.p90) == (pytest.approx(1.8), pytest.approx(2.2))
    assert not whole.refused


def test_what_was_disturbed_is_refused_with_its_contended_figure():
    nothing = round_of(Timing(*[float("nan")] * 4, 8.0, 0, 0.0), 40)
    assert nothing == [None, None, None, None, 8.0, 0, 40]
    none = merged([nothing] * 6, Protocol())
    assert "0 of 240 samples were undisturbed" in none.refused
    assert none.contended_p90 == 8.0
    few = merged([nothing] * 5 + [round_of(timing(1.0, n=10, accept=0.25), 40)], Protocol())
    assert "10 of 240" in few.refused  # 4 %
    enough = merged([nothing] * 5 + [round_of(timing(1.0, n=30, accept=0.75), 40)], Protocol())
    assert not enough.refused
    assert enough.ms == 1.0


def test_what_is_refused_gets_three_times_as_many_rounds():
    nothing = [None, None, None, None, 8.0, 0, 40]
    good = round_of(timing(1.0), 40)
    left = [visits_left([nothing] * n, 6, Protocol()) for n in (0, 5, 6, 17, 18)]
    assert left == [6, 1, 1, 1, 0]
    assert [visits_left([good] * n, 6, Protocol()) for n in (0, 5, 6)] == [6, 1, 0]


def test_speeds_are_told_by_the_middle_group():
    groups = [{"a": f * 1.0, "b": f * 2.0, "c": f * 9.0} for f in (1.0, 1.05, 0.8)]
    assert speeds(groups) == pytest.approx([1.0, 1.05, 0.8])
    groups[2] = {"a": 1.0}
    assert speeds(groups)[2] != speeds(groups)[2]
    assert speeds([{"a": 5.0}]) == [1.0]


def model(name, weight_bytes=0):
    return {"name": name, "is": {}, "weight_bytes": weight_bytes}


def test_groups_fit_in_memory_beside_the_anchors():
    plan = {
        "runtime": {"threads": 1},
        "protocol": {"blocks": {"rounds": 6}, "children": {"rounds": 3}},
        "anchors": [model("a0", 10_000_000)],
        "blocks": [model(f"b{i}") for i in range(200)],
        "children": [model(f"c{i}", 10_000_000) for i in range(5)] + [model("huge", 10**9)],
    }
    groups = grouped(plan, 110_000_000)
    sizes = [(group["part"], group["rounds"], len(group["rows"])) for group in groups]
    assert sizes == [
        *[("blocks", 6, 20)] * 10, ("blocks", 6, 11),
        ("children", 3, 3), ("children", 3, 3), ("children", 3, 2), ("children", 3, 2),
    ]  # fmt: skip
    assert all(group["rows"][0]["name"] == "a0" for group in groups)
    measured = [row["name"] for group in groups for row in group["rows"] if row["name"] != "a0"]
    assert measured == [m["name"] for m in plan["blocks"] + plan["children"]]
    plan["runtime"]["threads"] = 2
    assert max(len(group["rows"]) for group in grouped(plan, 10**12)) == 16
    plan["runtime"]["threads"] = 1
    assert max(len(group["rows"]) for group in grouped(plan, 10**12)) == 120


@pytest.fixture
def measuring(done, monkeypatch):
    """A finished kit in this process, with a stop-watch that says what it is told."""
    plan = json.loads((done / "plan.json").read_text())
    out = str(done / "result.json")
    content = result_of(done)
    made = kit_measuring.Measuring(plan, str(done), out, 1e9)
    made.start({name: content["libraries"][name] for name in ("numpy", "onnxruntime")})
    monkeypatch.setattr(kit_measuring, "load", lambda model, plan, folder: lambda: None)
    return made


def test_a_group_of_another_speed_is_measured_again(measuring, monkeypatch, capsys):
    first, last = measuring.result["groups"][0], measuring.result["groups"][-1]
    assert first is not last
    kept = [row["rounds"] for row in first["rows"]]
    for group, factor in ((first, 1.0), (last, 1.5)):
        for row in group["rows"]:
            row["rounds"] = [round_of(timing(factor), 40) for _ in range(group["rounds"])]
    assert measuring.strays()
    calls = []

    def fake(runs, protocol, owns_threads, advance):
        calls.append(sorted(runs))
        return {name: timing(1.0) for name in runs}

    monkeypatch.setattr(kit_measuring, "measure", fake)
    measuring.measure_all()
    assert calls
    assert not measuring.strays()
    assert "changed its speed" in capsys.readouterr().err
    assert all(row["rounds"] for row in last["rows"])
    assert kept


def test_a_busy_machine_is_told_what_to_do(measuring, monkeypatch):
    nothing = Timing(*[float("nan")] * 4, 8.0, 0, 0.0)
    rows = [row for group in measuring.result["groups"] for row in group["rows"]]
    for row in rows:
        row["rounds"] = []
    monkeypatch.setattr(kit_measuring, "measure", lambda runs, *_: dict.fromkeys(runs, nothing))
    measuring.measure_all()
    measuring.save()
    text = kit_measuring.summary(measuring)
    assert f"{len(rows)} could not be timed honestly" in text
    assert "run the same command again" in text
    assert "--import" not in text
    stored = json.loads(Path(measuring.out).read_text())
    row = stored["groups"][0]["rows"][0]
    assert row["ms"] is None
    assert row["contended_p90"] == 8.0
    assert "0 of " in row["refused"]
    assert all(len(row["rounds"]) == 18 for row in stored["groups"][0]["rows"])
    monkeypatch.setattr(kit_measuring, "measure", lambda runs, *_: dict.fromkeys(runs, timing(1.0)))
    measuring.measure_all()  # the same command again
    measuring.save()
    assert import_command(measuring.plan) in kit_measuring.summary(measuring)


def test_short_children_get_more_rounds(measuring):
    for ms, rounds in ((0.001, 30), (5.0, 13), (500.0, 6)):
        for row in measuring.result["groups"][0]["rows"]:
            row["rounds"] = [round_of(timing(ms), 40)] * 6
        assert measuring._rounds_for_children() == rounds


def test_every_round_is_drawn_anew(measuring, monkeypatch):
    seen = []

    def fake(runs, protocol, owns_threads, advance):
        seen.append(protocol)
        return {name: timing(1.0) for name in runs}

    monkeypatch.setattr(kit_measuring, "measure", fake)
    group = measuring.result["groups"][0]
    for row in group["rows"]:
        row["rounds"] = []
    measuring._measure_group(group)
    assert [p.seed for p in seen] == [7 + i for i in range(group["rounds"])]
    assert [p.warmup for p in seen] == [3, 2, 2, 2, 2, 2]
    assert {p.rounds for p in seen} == {1}
    assert asdict(Protocol()) == {**asdict(seen[0]), "rounds": 6}


def pythons():
    """This one, and a 3.8 where one is found: on the path, or of pyenv."""
    old = shutil.which("python3.8")
    installed = sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python"))
    return [sys.executable, *([str(installed[-1])] if installed else [old] if old else [])]


def test_anchors_tell_the_speed_of_every_round(measuring, monkeypatch):
    seen = []

    def fake(runs, protocol, owns_threads, advance):
        seen.append(set(runs))
        return {name: timing(1.0) for name in runs}

    monkeypatch.setattr(kit_measuring, "measure", fake)
    group = measuring.result["groups"][0]
    group["rows"][-1]["rounds"] = []
    measuring._measure_group(group)
    assert seen == [{"a0", group["rows"][-1]["name"]}] * group["rounds"]


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons())
def test_a_fresh_environment_with_numpy_and_onnxruntime_only(fresh, tmp_path, python):
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    inside = str(tmp_path / "venv" / "bin" / "python")
    install = [inside, "-m", "pip", "install", "-q", "numpy", "onnxruntime"]
    if subprocess.run(install, check=False).returncode:
        pytest.skip("numpy and onnxruntime cannot be installed here")
    process = started(fresh, python=inside)
    wait_for(fresh / "result.json", process)
    process.kill()
    process.communicate()
    before = rows_of(fresh)
    ended = run(fresh, python=inside)
    assert ended.returncode == 0, ended.stderr
    assert result_of(fresh)["complete"] is True
    assert all(rows_of(fresh)[key][: len(rounds)] == rounds for key, rounds in before.items())
