"""Tables from the command line on an imaginary device: profiled, checked, imported, kept."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from fake_latency import FakeRuntime, imaginary_device
from small_run import cli, done, facts, refused

from elastic_nas import profiling
from elastic_nas.files import user_folder
from elastic_nas.latency.fitting import fit_model
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.speed_file import read_speed
from elastic_nas.latency.table import LatencyTable
from elastic_nas.network import Network

DEVICE, SPACE, OTHER = "local-ort-1t", "tiny:size=8", "tiny:size=16"


@pytest.fixture
def stopwatch(monkeypatch):
    return imaginary_device(monkeypatch)


def table_file():
    return user_folder() / "latency_tables" / f"{DEVICE}.json"


@pytest.fixture
def place():
    return table_file()


def fails(*options):
    result = cli("profile", DEVICE, "--check", *options)
    assert result.exit_code == 1
    return result.stdout


def checked(space):
    digest = Predictor(Network(space, 1000), LatencyTable.read(table_file())).digest
    return read_speed(DEVICE, digest)


def test_a_check_times_the_anchors_of_every_space(stopwatch, place):
    for space in (SPACE, OTHER):
        done("profile", DEVICE, "--space", space)
    stopwatch.factor = 1.03
    said = done("profile", DEVICE, "--check")
    assert f"{SPACE}   holds; speed 1.0" in said
    assert f"{OTHER}  holds; speed 1.0" in said
    assert all(checked(space).factor == pytest.approx(1.03, abs=0.02) for space in (SPACE, OTHER))
    assert len(facts("profile", DEVICE, "--check", "--space", OTHER)["spaces"]) == 1


def test_a_check_that_fails_exits_with_1_and_is_remembered(stopwatch, place):
    done("profile", DEVICE, "--space", SPACE)
    stopwatch.factor = 1.2
    found = json.loads(fails("--json"))
    assert not found["holds"]
    assert "times as long" in found["spaces"][0]["why"]
    assert checked(SPACE).why == found["spaces"][0]["why"]
    said = fails()
    assert "does not hold" in said
    assert f"move {place} away, then elastic-nas profile {DEVICE} --space {SPACE}" in said
    stopwatch.factor = 1.0
    done("profile", DEVICE, "--check")
    assert checked(SPACE).why == ""


def test_a_table_of_another_version_is_not_timed_to_be_checked(stopwatch, place, monkeypatch):
    done("profile", DEVICE, "--space", SPACE)
    before = stopwatch.timed
    monkeypatch.setattr(profiling, "runtime_of", lambda device: FakeRuntime("2.0"))
    assert "cannot hold here: it was measured with onnxruntime 1.0, not 2.0" in refused(
        "profile", DEVICE, "--check"
    )
    assert stopwatch.timed == before


def test_a_table_that_cannot_be_continued_is_kept_aside(stopwatch, place, monkeypatch, capsys):
    done("profile", DEVICE, "--space", SPACE)
    old = place.read_bytes()
    monkeypatch.setattr(profiling, "runtime_of", lambda device: FakeRuntime("2.0"))
    profiling.profile(DEVICE, profiling.Scope(space=SPACE))
    (aside,) = place.parent.glob(f"{DEVICE}.replaced-*.json")
    assert aside.read_bytes() == old
    said = capsys.readouterr().err
    assert f"was measured with onnxruntime 1.0, not 2.0; it is kept as {aside}" in said
    assert LatencyTable.read(place).runtime["version"] == "2.0"


def test_a_profile_with_nothing_lacking_keeps_what_was_checked(stopwatch, place):
    for _ in range(2):
        done("profile", DEVICE, "--space", SPACE)
        if checked(SPACE) is None:
            done("profile", DEVICE, "--check")
    assert len(LatencyTable.read(place).provenance["visits"]) == 2
    assert checked(SPACE) is not None


def test_an_imported_table_is_refitted_on_the_blocks_that_are_kept(stopwatch, place, tmp_path):
    source = tmp_path / "theirs.json"
    for space in (SPACE, OTHER):
        done("profile", DEVICE, "--space", space, "--out", source)
    stopwatch.factor = 1.08
    done("profile", DEVICE, "--space", SPACE)
    said = done("profile", DEVICE, "--space", SPACE, "--import", source)
    assert "note: " in said
    both, theirs = LatencyTable.read(place), LatencyTable.read(source)
    network = Network(OTHER, 1000)
    assert both.models[network.identity] == fit_model(network, both)
    assert both.models[network.identity] != theirs.models[network.identity]
    known = Predictor(network, theirs)
    told = Predictor(network, both)
    children = [row.genotype for row in theirs.children if row.space == network.identity]
    assert told.predict_ms(children) == pytest.approx(known.predict_ms(children), rel=0.03)


def test_a_table_without_the_asked_space_is_refused_and_nothing_written(stopwatch, place, tmp_path):
    source = tmp_path / "theirs.json"
    done("profile", DEVICE, "--space", SPACE, "--out", source)
    said = refused("profile", DEVICE, "--space", OTHER, "--import", source)
    assert f"holds no model of {OTHER}, but of {SPACE}" in said
    assert not place.exists()
    done("profile", DEVICE, "--space", SPACE, "--import", source)
    assert place.read_bytes() == source.read_bytes()


def test_nothing_is_replaced_until_something_was_measured(stopwatch, place, monkeypatch):
    done("profile", DEVICE, "--space", SPACE)
    old = place.read_bytes()
    monkeypatch.setattr(profiling, "runtime_of", lambda device: FakeRuntime("2.0"))
    stopwatch.refuse = lambda ms: True
    refused("profile", DEVICE, "--space", SPACE)
    assert place.read_bytes() == old
    assert [path.name for path in place.parent.glob("*.json")] == [place.name]


def test_a_space_without_a_model_is_not_checked(stopwatch, place):
    for space in (SPACE, OTHER):
        done("profile", DEVICE, "--space", space)
    table = LatencyTable.read(place)
    del table.models[Network(OTHER, 10).identity]
    table.write(place)
    assert [row["space"] for row in facts("profile", DEVICE, "--check")["spaces"]] == [SPACE]
    before = stopwatch.timed
    assert "has no fitted model" in refused("profile", DEVICE, "--check", "--space", OTHER)
    assert stopwatch.timed == before


def test_spaces_that_are_not_here_any_more_are_passed_over(stopwatch, place):
    done("profile", DEVICE, "--space", SPACE)
    table = LatencyTable.read(place)
    table.provenance["spaces"] |= {"a" * 64: "gone", "b" * 64: "tiny:size=none"}
    table.provenance["anchors"] |= {key * 64: [] for key in "ab"}
    table.write(place)
    assert [row["space"] for row in facts("profile", DEVICE, "--check")["spaces"]] == [SPACE]


WRITER = """if True:
    import sys, time
    from pathlib import Path
    import pytest
    from fake_latency import imaginary_device
    from elastic_nas import importing, profiling
    from elastic_nas.latency.table import LatencyTable
    how, space, go = sys.argv[1:]
    with pytest.MonkeyPatch.context() as patch:
        imaginary_device(patch)
        known = profiling.Scope.known

        def slowly(scope, device):
            found = known(scope, device)
            time.sleep(1.0)
            return found

        patch.setattr(profiling.Scope, "known", slowly)
        scope = profiling.Scope(space=space)
        Path(go).with_name(f"ready-{space[10:]}").touch()
        while not Path(go).exists():
            time.sleep(0.01)
        if how == "profile":
            profiling.profile("local-ort-1t", scope)
        else:
            importing.import_file(Path(how), "local-ort-1t", scope)
"""


def together(tmp_path, *orders):
    """Run two writers at once, each in a process of its own; returns their exits and words."""
    go = tmp_path / "go"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *map(str, order), str(go)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for order in orders
    ]
    while len(list(tmp_path.glob("ready-*"))) < len(orders):
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    go.touch()
    words = [process.communicate(timeout=120)[1] for process in running]
    return [process.returncode for process in running], words


def test_two_imports_at_once_lose_nothing(stopwatch, place, tmp_path):
    sources = {space: tmp_path / f"{space[10:]}.json" for space in (SPACE, OTHER)}
    for space, source in sources.items():
        done("profile", DEVICE, "--space", space, "--out", source)
    exits, _ = together(tmp_path, *((sources[space], space) for space in (SPACE, OTHER)))
    assert exits == [0, 0]
    table = LatencyTable.read(place)
    assert table.models.keys() == {Network(space, 1000).identity for space in (SPACE, OTHER)}


def test_of_two_profiles_at_once_one_is_refused(place, tmp_path):
    exits, words = together(tmp_path, ("profile", SPACE), ("profile", OTHER))
    assert sorted(exits) == [0, 1]
    assert "is being written by another elastic-nas process" in "".join(words)
    kept = (SPACE, OTHER)[exits.index(0)]
    assert LatencyTable.read(place).models.keys() == {Network(kept, 1000).identity}


def test_an_import_of_a_table_that_contradicts_itself_leaves_the_old_one(
    stopwatch, place, tmp_path
):
    source = tmp_path / "theirs.json"
    done("profile", DEVICE, "--space", SPACE, "--out", source)
    done("profile", DEVICE, "--space", OTHER)
    old, parts = place.read_bytes(), json.loads(source.read_text())
    for row in parts["children"]:
        for key in ("ms", "p10", "p90", "contended_p90"):
            row[key] *= 10
        row["round_ms"] = [10 * ms for ms in row["round_ms"]]
    source.write_text(json.dumps(parts))
    said = refused("profile", DEVICE, "--space", SPACE, "--import", source)
    assert f"contradicts itself about {SPACE}" in said
    assert place.read_bytes() == old


def test_children_of_a_space_that_is_not_here_are_not_added(stopwatch, place, tmp_path):
    """Its model could not be fitted again, and would contradict them."""
    source = tmp_path / "theirs.json"
    done("profile", DEVICE, "--space", SPACE, "--out", source)
    table = LatencyTable.read(source)
    identity = Network(SPACE, 1000).identity
    table.provenance["spaces"][identity] = "gone"
    mine = replace(table, children=table.children[:-1])
    mine.models = {identity: replace(table.models[identity], n_fit=39)}
    mine.write(place)
    done("profile", DEVICE, "--space", OTHER, "--out", tmp_path / "other.json")
    other = LatencyTable.read(tmp_path / "other.json")
    both = replace(
        other,
        children=[*other.children, *table.children],
        provenance={**other.provenance, "anchors": {**other.provenance["anchors"],
                                                    **table.provenance["anchors"]}},
    )  # fmt: skip
    both.write(source)
    done("profile", DEVICE, "--space", OTHER, "--import", source)
    found = LatencyTable.read(place)
    assert len([row for row in found.children if row.space == identity]) == 99
