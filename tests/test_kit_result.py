"""What comes back from a device: sound results make tables, all others a clear error."""

import json
import math
from contextlib import suppress
from dataclasses import asdict, replace
from random import Random

import pytest
from fake_latency import FACTS, NULL_MS, alone_ms, true_ms
from hypothesis import given, settings
from hypothesis import strategies as st
from small_kit import BOARD, NETWORK, result_of, rewritten, run, unpacked, written

from elastic_nas.errors import MissingEntries, TableError
from elastic_nas.kit_check import RESULT_SCHEMA
from elastic_nas.latency.kit_result import is_result, read_result
from elastic_nas.latency.kit_table import table_from
from elastic_nas.latency.plan import Draw, plan_for
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Protocol
from elastic_nas.network import Network

WIDE = Network("tiny:size=16", 10)
PLAN = plan_for(WIDE, Draw(20, 60))
REFUSED = [None, None, None, None, 8.0, 0, 40]


def rounds(ms, rng, factor=1.0):
    """Six rounds of a model that takes so long on the imaginary device."""
    drawn = [factor * ms * rng.lognormvariate(0, 0.01) for _ in range(6)]
    return [[ms, 0.98 * ms, ms, 1.02 * ms, 1.3 * ms, 10, 11] for ms in drawn]


def child_ms(genotype):
    return 0.02 + sum(map(true_ms, WIDE.blocks(genotype)))


def content(factors=(1.0, 1.05, 0.97), refuse=frozenset()):
    """A result of the imaginary device, in groups of different speeds."""
    rng = Random(5)
    pairs = [(g, "fit") for g in PLAN.fit] + [(g, "calibrate") for g in PLAN.calibrate]
    models = [("null", {}, NULL_MS)]
    models += [(f"b{i}", {"block": s.key}, alone_ms(s)) for i, s in enumerate(PLAN.blocks)]
    models += [
        (f"c{i}", {"genotype": list(g), "role": role}, child_ms(g))
        for i, (g, role) in enumerate(pairs)
    ]
    anchors = [
        (f"a{i}", {"genotype": list(g), "role": "anchor"}, child_ms(g))
        for i, g in enumerate(PLAN.anchors)
    ]
    groups = [
        {
            "part": "blocks",
            "rounds": 1,
            "rows": [
                {"name": n, "is": w, "rounds": [REFUSED] if n in refuse else rounds(ms, rng, f)}
                for n, w, ms in anchors + models[number :: len(factors)]
            ],
        }
        for number, f in enumerate(factors)
    ]
    return {
        "schema": RESULT_SCHEMA,
        "draw": {"n_fit": 20, "n_calibrate": 60, "seed": 0},
        "plan": "0" * 64,
        "device": "board",
        "network": {"space": "tiny:size=16", "classes": 10, "identity": WIDE.identity},
        "precision": "fp32",
        "protocol": {part: asdict(Protocol()) for part in ("blocks", "children")},
        "runtime": {"name": "onnxruntime", "version": "1.0", "provider": "CPUExecutionProvider",
            "threads": 1, "graph_optimization": "all"},
        "filter": "a test's",
        "environment": dict(FACTS),
        "visits": [{"date": "2026-01-01", "device_s": 20.0, "seconds": 30.0, "stolen_share": 0.0,
            "before": {"load": [0.1]}, "after": {"load": [0.2]}}],
        "groups": groups,
        "complete": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def sound():
    return content()


@pytest.fixture(scope="module")
def short(sound):
    """The first rows of the first group: enough to be refused."""
    return {**sound, "groups": [{**sound["groups"][0], "rows": sound["groups"][0]["rows"][:12]}]}


def made(tmp_path, content, network=WIDE, device=BOARD):
    path = rewritten(tmp_path / "result.json", content)
    return table_from(read_result(path), network, device)


def changed(content, *keys, to):
    """A deep copy with one value changed."""
    copy = json.loads(json.dumps(content))
    place = copy
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return copy


def test_a_table_that_predicts(tmp_path, sound):
    table = made(tmp_path, sound)
    model = table.models[WIDE.identity]
    assert (model.n_fit, model.n_calibrate) == (20, 60)
    assert model.mape < 0.02
    table.write(tmp_path / "table.json")
    again = LatencyTable.read(tmp_path / "table.json")
    assert again == table
    assert again.device == {"name": "board", **FACTS}
    assert again.provenance["kit"] == "0" * 64
    assert again.provenance["spaces"] == {WIDE.identity: "tiny:size=16"}
    (visit,) = again.provenance["visits"]
    assert visit["speed"] == pytest.approx([0.97, 1.05], abs=0.01)
    assert not table.missing(PLAN.blocks)


def test_groups_are_brought_to_one_speed(tmp_path):
    table = made(tmp_path, content(factors=(1.0, 1.08, 0.93)))
    ratios = [row.ms / alone_ms(spec) for spec, row in table.blocks.items()]
    assert max(ratios) / min(ratios) < 1.04
    for row in table.provenance["anchors"][WIDE.identity]:
        assert row["ms"] == pytest.approx(child_ms(tuple(row["genotype"])), rel=0.02)


def test_a_speed_that_moved_too_far_is_refused(tmp_path):
    with pytest.raises(TableError, match=r"moved by more than a tenth in 1 of 3.*\n.*run\.py"):
        made(tmp_path, content(factors=(1.0, 1.0, 1.2)))
    anchors = {f"a{i}" for i in range(len(PLAN.anchors))}
    with pytest.raises(TableError, match="in 3 of 3 groups"):
        made(tmp_path, content(refuse=anchors))


def test_refused_children_are_done_without(tmp_path, capsys):
    table = made(tmp_path, content(refuse={"c0", "c30", "c31", "a0"}))
    model = table.models[WIDE.identity]
    assert (model.n_fit, model.n_calibrate) == (19, 58)
    said = capsys.readouterr().err
    assert "1 fit children could not be timed honestly; 19 are left" in said
    assert "2 calibrate children could not be timed honestly; 58 are left" in said


def test_refused_blocks_are_not(tmp_path):
    with pytest.raises(TableError, match=r"2 blocks could not be timed honestly.*b\d.*0 of 40"):
        made(tmp_path, content(refuse={"b3", "b4"}))
    with pytest.raises(TableError, match="the empty model was not measured"):
        made(tmp_path, content(refuse={"null"}))
    with pytest.raises(TableError, match="no child to fit on"):
        made(tmp_path, content(refuse={f"c{i}" for i in range(20)}))


def test_an_unfinished_result_says_the_command(tmp_path, sound):
    with pytest.raises(TableError, match=r"not finished.*\n.*python run.py"):
        made(tmp_path, changed(sound, "complete", to=False))


def test_foreign_results_are_refused(tmp_path, sound):
    for keys, value, message in (
        (("device",), "other", "made for the device other, not for board"),
        (("network", "identity"), "f" * 16, "made for the space tiny:size=16, which"),
        (("precision",), "int8", "precision int8"),
        (("runtime", "threads"), 2, "number of threads 2"),
    ):
        with pytest.raises(TableError, match=message):
            made(tmp_path, changed(sound, *keys, to=value))
    arm = replace(BOARD, cpu={"arch": "aarch64"})
    with pytest.raises(TableError, match="was not measured on board: it has an aarch64 CPU"):
        made(tmp_path, sound, device=arm)
    with pytest.raises(TableError, match="which tiny:size=32 is not"):
        made(tmp_path, sound, network=Network("tiny:size=32", 10))


def test_a_kit_of_fewer_blocks_is_refused(tmp_path, sound):
    fewer = json.loads(json.dumps(sound))
    group = fewer["groups"][0]
    group["rows"] = [row for row in group["rows"] if row["name"] != "b2"]
    with pytest.raises(MissingEntries, match="lacks 1 block"):
        made(tmp_path, fewer)


FIRST = ("groups", 0, "rows", 9)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("schema",), "elastic-kit-result/2"),
        (("plan",), 5),
        (("device",), "a\x1b[2Jb"),
        (("device",), "x" * 1000),
        (("network",), None),
        (("network", "classes"), "10"),
        (("environment", "cores"), 1.5),
        (("environment", "flags"), "avx"),
        (("environment", "flags"), [["avx"]]),
        (("environment", "cpu"), {"a": 1}),
        (("environment", "thermal_c"), [1e300]),
        (("runtime", "threads"), True),
        (("runtime", "version"), None),
        (("visits",), {}),
        (("visits", 0), 3),
        (("visits", 0, "device_s"), "long"),
        (("groups",), []),
        (("groups", 0), []),
        (("groups", 0, "rows"), []),
        ((*FIRST, "rounds"), "fast"),
        ((*FIRST, "rounds", 0), [1.0, 1.0, 1.0, 1.0, 1.0, 10]),
        ((*FIRST, "rounds", 0, 0), -1.0),
        ((*FIRST, "rounds", 0, 0), 0),
        ((*FIRST, "rounds", 0, 0), 1e7),
        ((*FIRST, "rounds", 0, 0), None),
        ((*FIRST, "rounds", 0, 1), 1e5),
        ((*FIRST, "rounds", 0, 4), "1"),
        ((*FIRST, "rounds", 0, 5), 12),
        ((*FIRST, "rounds", 0, 5), -1),
        ((*FIRST, "rounds", 0, 6), 1.5),
        ((*FIRST, "rounds", 0), [None, None, None, None, 1.0, 0, 0]),
        ((*FIRST, "is"), None),
        ((*FIRST, "is"), {"block": {"kind": "conv"}}),
        ((*FIRST, "is"), {"block": {"kind": [], "a": 10**12}}),
        ((*FIRST, "is"), {"genotype": [0], "role": "verify"}),
        ((*FIRST, "is"), {"genotype": [0.5], "role": "fit"}),
        ((*FIRST, "is"), {"genotype": [0], "role": "fit"}),
        ((*FIRST, "is"), {"genotype": [], "role": "fit"}),
        ((*FIRST, "name"), ["b"]),
        (("protocol", "blocks", "seed"), []),
        (("protocol",), 4),
    ],
)
def test_impossible_content_is_one_clear_error(tmp_path, short, keys, value):
    with pytest.raises(TableError) as told:
        made(tmp_path, changed(short, *keys, to=value))
    cut_off = ("block(s)", "not measured", "no child to fit on")
    assert not any(words in str(told.value) for words in cut_off)


def renamed(content, old, **changes):
    """The rows of one name with something changed."""
    copy = json.loads(json.dumps(content))
    for group in copy["groups"]:
        for row in group["rows"]:
            if row["name"] == old:
                row.update(changes)
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {**c, "groups": [*c["groups"], c["groups"][0]]}, "stands there twice"),
        (lambda c: renamed(c, "b1", name="b0"), "b0 stands there twice"),
        (lambda c: renamed(c, "b1", **{"is": {"block": PLAN.blocks[0].key}}), "the block .* twice"),
        (lambda c: renamed(c, "c1", **{"is": {"genotype": list(PLAN.fit[0]), "role": "calibrate"}}),
            "the child .* stands there twice"),
        (lambda c: renamed(c, "b1", **{"is": {}}), "b1 does not say what it is"),
        (lambda c: renamed(c, "null", name="b999"), "b999 does not say what it is"),
        (lambda c: changed(c, "groups", 1, "rows", 0, "is", "genotype", to=list(PLAN.fit[1])),
            "not measured beside the same anchors"),
        (lambda c: changed(c, "groups", 1, "rows", 0, "name", to="a99"), "the same anchors"),
        (lambda c: renamed(c, "b1", ms=50.0), "b1 tells ms 50.0, but its rounds come to"),
        (lambda c: renamed(c, "b1", n=1), "b1 tells n 1, but its rounds come to 60"),
        (lambda c: renamed(c, "b1", ms=None), "b1 tells ms None"),
        (lambda c: renamed(c, "b1", rounds=[]), "it is not finished"),
        (lambda c: changed(c, "groups", 0, "rounds", to=7), "it is not finished"),
        (lambda c: renamed(c, "b1", rounds=[[1.0] * 5 + [99_999, 99_999]] * 20), "1999980 samples"),
        (lambda c: renamed(c, "null", rounds=[[9.0] * 5 + [10, 10]] * 6), "empty model takes 9"),
        (lambda c: renamed(c, "b1", **{"is": {"block": {**PLAN.blocks[0].key, "in_ch": 99}}}),
            "1 blocks that tiny:size=16 has not"),
        (lambda c: renamed(c, "c1", **{"is": {"genotype": [0], "role": "fit"}}),
            "a child that tiny:size=16 has not"),
        (lambda c: renamed(c, "c1", **{"is": {"genotype": [999] * 30, "role": "fit"}}),
            "a child that tiny:size=16 has not"),
        (lambda c: changed(c, "visits", 0, "date", to="tomorrow"), "visits.0.date"),
        (lambda c: changed(c, "visits", 0, "date", to="9999-01-01"), "in that year"),
        (lambda c: changed(c, "visits", 0, "stolen_share", to=7.0), "visits.0.stolen_share"),
        (lambda c: changed(c, "device", to="a/../b"), "made for the device a/../b, not for board"),
        (lambda c: {**c, "more": 1}, "more: Extra"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_and_makes_no_table(tmp_path, sound, change, message):
    with pytest.raises(TableError, match=message):
        made(tmp_path, change(sound))


def test_whatever_makes_a_table_makes_one_that_can_be_read(tmp_path, sound):
    """Figures at the very ends of what is sound, at another speed."""
    for ms in (1e-9, 4.99e5):
        six = [[ms, ms, ms, ms, ms, 10, 11]] * 6
        table = made(tmp_path, renamed(sound, "b1", rounds=six))
        table.write(tmp_path / "table.json")
        assert LatencyTable.read(tmp_path / "table.json") == table


def test_millions_of_faults_are_one_error(tmp_path, sound):
    path = rewritten(tmp_path / "result.json", {**sound, "groups": [{"rows": [{}] * 99_999}] * 20})
    with pytest.raises(TableError, match="part: Field required"):
        read_result(path)
    group = {**sound["groups"][0], "rows": [{}] * 99_999}
    path = rewritten(tmp_path / "result.json", {**sound, "groups": [group] * 20})
    with pytest.raises(TableError, match="name: Field required"):
        read_result(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": NaN}', "[" * 100_000, "\xff"])
def test_what_is_no_result_at_all(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text, encoding="latin-1")
    assert not is_result(path)
    with pytest.raises(TableError, match="is no usable result of a kit"):
        read_result(path)


def test_a_missing_or_huge_file(tmp_path, monkeypatch):
    with pytest.raises(TableError, match="is no usable result of a kit"):
        read_result(tmp_path / "none.json")
    assert not is_result(tmp_path / "none.json")
    assert not is_result(tmp_path)
    with pytest.raises(TableError):
        read_result(tmp_path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(TableError, match="larger than 67,108,864 bytes"):
        read_result(tmp_path / "huge.json")


def test_edited_and_truncated_results_are_told(tmp_path, sound):
    path = rewritten(tmp_path / "result.json", sound)
    text = path.read_text()
    path.write_text(text.replace('"cores": 2', '"cores": 4'))
    with pytest.raises(TableError, match="its hash is wrong: it was edited"):
        read_result(path)
    path.write_text(text[:-2000])
    with pytest.raises(TableError, match="not valid JSON"):
        read_result(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_is_a_traceback(tmp_path_factory, short, data):
    """Any value at any place is read or a clear error."""
    copy = json.loads(json.dumps(short))
    place, odd = copy, st.sampled_from([None, [], {}, "", -1, 2**70, 1e308, True, "x" * 600])
    for _ in range(6):
        keys = list(place) if isinstance(place, dict) else range(min(len(place), 20))
        if not keys:
            break
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(odd)
            break
        place = place[key]
    folder = tmp_path_factory.mktemp("odd")
    with suppress(TableError):
        read_result(rewritten(folder / "result.json", copy))


def test_a_measured_kit_makes_a_table(tmp_path):
    folder = unpacked(written(tmp_path / "kit.zip"), tmp_path / "kit")
    ended = run(folder)
    assert ended.returncode == 0, ended.stderr
    result = read_result(folder / "result.json")
    assert is_result(folder / "result.json")
    table = table_from(result, NETWORK, BOARD)
    table.write(tmp_path / "table.json")
    assert LatencyTable.read(tmp_path / "table.json") == table
    assert math.isfinite(table.provenance["null_ms"])
    assert table.runtime["version"] == result_of(folder)["libraries"]["onnxruntime"]
    (child,) = table.children
    assert child.genotype == NETWORK.smallest
    assert "undisturbed" not in table.protocol["filter"]
