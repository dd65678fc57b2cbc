"""Latency tables: what is refused, what is interpolated, and that nothing else gets through."""

import json
import math
from copy import deepcopy
from pathlib import Path
from random import Random

import fake_latency
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_nas import plugins
from elastic_nas.errors import MissingEntries, TableError
from elastic_nas.latency import table as module
from elastic_nas.latency.devices import Device
from elastic_nas.latency.rows import BlockRow, ChildRow
from elastic_nas.latency.table import LatencyTable
from elastic_nas.measure import Timing
from elastic_nas.network import Network
from elastic_nas.specs import spec_from_key
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.conv import ConvSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec

DEVICE = Device("local-ort-1t", "", "onnxruntime_cpu", 1, "fp32", generic=True)
STEM = ConvSpec(16, 16, 3, 8, 3, 1, "relu")
HEAD = HeadSpec(4, 4, 16, 32, 0, "hswish")
MBCONV = MBConvSpec(8, 8, 8, 24, 8, 3, 1, 4, True, "relu", "sigmoid", "identity")


def small():
    """A table with two kinds of blocks, a child and a model."""
    table = fake_latency.table()
    for outputs, ms in ((2, 0.01), (10, 0.02), (100, 0.11), (1000, 1.01)):
        table.add_block(ClassifierSpec(96, outputs), fake_latency.block(ms))
    table.add_block(STEM, fake_latency.block(0.05))
    timing = Timing(1.5, 1.4, 1.5, 1.7, 1.9, 30, 0.5, [1.4, 1.6])
    table.children.append(ChildRow.of("0123", 10, (0, 2, 1), "fit", timing))
    table.models["0123"] = fake_latency.model()
    return table


def parts(tmp_path):
    small().write(tmp_path / "t.json")
    return json.loads((tmp_path / "t.json").read_text())


def read(tmp_path, value):
    text = value if isinstance(value, str) else json.dumps(value)
    (tmp_path / "t.json").write_text(text)
    return LatencyTable.read(tmp_path / "t.json")


def test_what_is_written_is_read(tmp_path):
    table = small()
    table.write(tmp_path / "t.json")
    assert LatencyTable.read(tmp_path / "t.json") == table
    lines = (tmp_path / "t.json").read_text().splitlines()
    assert sum('"kind": "classifier"' in line for line in lines) == 4  # a row a line


def test_rows_keep_six_digits():
    timing = Timing(1 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 5, 1 / 3, [1 / 3])
    assert BlockRow.of(timing).ms == 0.333333
    row = ChildRow.of("0", 2, (0,), "verify", timing)
    assert row.timing.round_ms == [0.333333]
    assert (row.timing.ms, row.timing.n, row.timing.accept) == (0.333333, 5, 0.333333)


def nothing(value):
    value.clear()


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("schema", "elastic-latency/1", "schema is not"),
        ("provenance", {}, "provenance.date: it is missing"),
        ("provenance", None, "provenance: must be a valid dictionary"),
        ("provenance.date", 3, "provenance.date: must be a valid string, got 3"),
        ("provenance.date", "\x1b[2J", "provenance.date: must be printable"),
        ("provenance.date", "x" * 10**6, "provenance.date: .* at most 1000"),
        ("provenance.null_ms", True, "provenance.null_ms: must be a valid number"),
        ("provenance.null_ms", -1, "provenance.null_ms: must be greater than or equal to 0"),
        ("provenance.anchors", [], "provenance.anchors: must be a valid dict"),
        ("provenance.anchors", {"x": 3}, "anchors.x: must be a valid list"),
        ("provenance.anchors", {"x": [{"classes": 2, "genotype": [0], "ms": 0}]}, "ms: must be"),
        ("provenance.anchors", {"x": [{"classes": "2", "genotype": [0], "ms": 1}]}, "classes"),
        ("provenance.anchors", {"x": [{"classes": 2, "genotype": 0, "ms": 1}]}, "genotype"),
        ("provenance.spaces", ["tiny"], "spaces: must be a valid dict"),
        ("provenance.spaces", {"x": 3}, "spaces.x: must be a valid string"),
        ("provenance.visits", {}, "visits: must be a valid list"),
        (
            "provenance.visits",
            [{"date": "d", "device_s": 1, "speed": 1, "stolen_share": None}],
            "visits.0.speed",
        ),
        ("provenance.visits", [{"device_s": 1, "speed": [], "stolen_share": None}], "0.date"),
        ("provenance.device_s", "9", "device_s: must be a valid number"),
        ("provenance.imported", [3], "imported.0: must be a valid string"),
        ("provenance.energy", {"x": {"rule": "r"}}, "energy.x.millijoules: it is missing"),
        ("provenance.energy", {"x": {"rule": "r", "millijoules": {"a": "1"}}}, "millijoules.a"),
        ("blocks.0.memory_bytes", 0, "memory_bytes.0: must be greater than 0"),
        ("blocks.0.memory_bytes", 1.5, "memory_bytes.0: must be a valid integer"),
        ("device.cpu", None, "device.cpu: must be a valid string"),
        ("device.flags", [1], "device.flags.0: must be a valid string"),
        ("runtime.version", 1.3, "runtime.version: must be a valid string"),
        ("protocol.seed", "x", "protocol.seed: must be a valid integer"),
        ("precision", 32, "precision"),
        ("blocks", {}, "blocks: must be a valid list"),
        ("models", [], "models: must be a valid dict"),
        ("extra", 1, "unknown key 'extra'"),
        ("blocks.0", 3, "exactly the fields"),
        ("blocks.0.ms", 0, "ms.0: must be greater than 0, got 0"),
        ("blocks.0.ms", -1, "ms.0: must be greater than 0"),
        ("blocks.0.ms", 1e6, "ms.0: must be less than 1000000"),
        ("blocks.0.ms", 10**400, "a number of 401 digits"),
        ("blocks.0.ms", "1", "ms.0: must be a valid number"),
        ("blocks.0.ms", True, "ms.0: must be a valid number, got True"),
        ("blocks.0.ms", 500.0, "ms is 500, far from"),
        ("blocks.0.p90", "1", "p90.0: must be a valid number"),
        ("blocks.0.p10", 5.0, "p10 is larger"),
        ("blocks.0.n", 0, "n.0: must be greater than or equal to 1"),
        ("blocks.0.n", 1.5, "n.0: must be a valid integer"),
        ("blocks.0.accept", 0, "accept.0: must be greater than 0"),
        ("blocks.0.accept", 1.2, "accept.0: must be less than or equal to 1"),
        ("blocks.0.extra", 1, "exactly the fields"),
        ("blocks.0.key", [], "unknown block kind"),
        ("blocks.0.key.kind", "conv9", "unknown block kind"),
        ("blocks.0.key.kind", [], "unknown block kind"),
        ("blocks.0.key.in_features", -1, "which cannot be"),
        ("blocks.0.key.in_features", 0, "which cannot be"),
        ("blocks.0.key.in_features", 10**9, "which cannot be"),
        ("blocks.0.key.in_features", 9.5, "classifier block has the fields"),
        ("blocks.0.key.in_features", True, "classifier block has the fields"),
        ("blocks.0.key.out_features", 10, "stands there twice"),
        ("children.0.role", "test", "role.0: must be 'fit', 'calibrate' or 'verify'"),
        ("children.0.genotype", [-1], "genotype.0.0: must be greater than or equal to 0"),
        ("children.0.genotype", 3, "genotype.0: must be a valid list"),
        ("children.0.round_ms", 3, "round_ms.0: must be a valid list"),
        ("children.0.round_ms", [0], "round_ms.0.0: must be greater than 0"),
        ("children.0.round_ms", [9.0], "ms is 1.5, but the median of its rounds is 9"),
        ("children.0.classes", 1, "classes.0: must be greater than or equal to 2"),
        ("children.0.n", 0, "n.0: must be greater than or equal to 1"),
        ("children.0", {}, "exactly the fields"),
        ("children.0", None, "exactly the fields"),
        ("models.0123.weights", [], "weights"),
        ("models.0123", None, "a fitted model: must be a valid dict"),
    ],
)
def test_bad_tables_are_refused(tmp_path, where, change, message):
    value = parts(tmp_path)
    *path, last = [
        int(step) if step.isdigit() and len(step) < 4 else step for step in where.split(".")
    ]
    target = value
    for step in path:
        target = target[step]
    target[last] = change
    with pytest.raises(TableError, match=message):
        read(tmp_path, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"schema": NaN}', "NaN is not a number"),
        ('{"schema": "a", "schema": "b"}', "stands there twice"),
        ("[]", "schema"),
        ('{"schema": "elastic-latency/2"}', "device: it is missing"),
        ("1" * 9000, "not valid JSON"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        read(tmp_path, text)


def test_infinite_numbers_and_nesting_are_refused(tmp_path):
    text = json.dumps(parts(tmp_path))
    with pytest.raises(TableError, match="1e999 is not a number"):
        read(tmp_path, text.replace('"ms": 0.01', '"ms": 1e999'))
    with pytest.raises(TableError, match="nested"):
        read(tmp_path, text.replace('"ms": 0.01', '"ms": ' + "[" * 50 + "]" * 50))


def test_missing_unreadable_and_huge_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(TableError, match=r"cannot read .*none\.json"):
        LatencyTable.read(tmp_path / "none.json")
    with pytest.raises(TableError, match="is a folder, not a file"):
        LatencyTable.read(tmp_path)
    with pytest.raises(TableError, match="is a device, not a file"):
        LatencyTable.read(Path("/dev/zero"))
    (tmp_path / "t.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TableError, match="no text file"):
        LatencyTable.read(tmp_path / "t.json")
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    with pytest.raises(TableError, match="larger than 1,048,576 bytes"):
        read(tmp_path, " " * (2**20 + 1))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.provenance.update(device_s=-1.0),
        lambda table: table.provenance.update(device_s=float("nan")),
        lambda table: table.device.update(cpu="\x07"),
        lambda table: table.add_block(STEM, fake_latency.block(1e7)),
        lambda table: table.children.append(table.children[0]),
        lambda table: table.models.update({"0123": fake_latency.model(n_fit=-1)}),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, spoil):
    table = small()
    table.write(tmp_path / "t.json")
    before = (tmp_path / "t.json").read_bytes()
    spoil(table)
    with pytest.raises(TableError, match=r"not written, as it could not be read again: .+What was"):
        table.write(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", plugins.available("spaces"))
def test_every_block_of_every_space_can_stand_in_a_table(name):
    network = Network(name, 10)
    for spec in {spec for unit in network.units for spec in unit.specs()}:
        assert spec_from_key(spec.key) == spec


VALUES = st.one_of(
    st.integers(-2, 3),
    st.sampled_from(
        [10**9, 10**400, 0.5, True, None, "", "relu", "x" * 10**5, [], {}, float("nan")]
    ),
)


@given(st.sampled_from([STEM.key, MBCONV.key, HEAD.key, ClassifierSpec(96, 10).key]), st.data())
def test_a_spec_of_any_key_has_costs_or_is_refused(key, data):
    changed = {**key, data.draw(st.sampled_from(sorted(key))): data.draw(VALUES)}
    try:
        spec = spec_from_key(changed)
    except TableError:
        return
    costs = spec.costs
    assert costs.macs > 0
    assert costs.weights > 0
    assert min(spec.input_shape) > 0
    assert min(spec.output_shape) > 0


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.none()), st.dictionaries(
    st.sampled_from(["kind", "height", "x"]), VALUES)))  # fmt: skip
def test_what_is_no_key_is_refused(value):
    with pytest.raises(TableError, match="block"):
        spec_from_key(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value, path=()):
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), value=JSON, how=st.sampled_from(["replace", "delete", "double"]))
def test_a_mutated_table_is_refused_or_sound(tmp_path, seed, value, how):
    table = parts(tmp_path)
    *path, last = Random(seed).choice(list(places(table)))
    target = table
    for step in path:
        target = target[step]
    if how == "delete":
        del target[last]
    elif how == "double" and isinstance(target, list):
        target.append(deepcopy(target[last]))
    else:
        target[last] = value
    try:
        found = read(tmp_path, table)
    except TableError:
        return
    for row in [*found.blocks.values(), *found.children]:
        assert 0 < row.ms < 1e6
        assert row.accept is None or 0 < row.accept <= 1
    assert all(math.isfinite(w) for m in found.models.values() for w in m.weights)
    found.stale("1.0", fake_latency.FACTS)
    found.write(tmp_path / "again.json")
    assert LatencyTable.read(tmp_path / "again.json") == found


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_text_is_refused_or_sound(tmp_path, data):
    text = json.dumps(parts(tmp_path))
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.text(max_size=3)) + text[at + 1 :]
    try:
        (tmp_path / "t.json").write_text(damaged, encoding="utf-8", errors="surrogatepass")
        LatencyTable.read(tmp_path / "t.json")
    except TableError:
        pass


def test_entries_are_exact_where_measured():
    assert small().entry_ms(STEM) == (0.05, False)
    assert small().entry_ms(ClassifierSpec(96, 10)) == (0.02, False)


@pytest.mark.parametrize(("outputs", "ms"), [(6, 0.015), (55, 0.065), (550, 0.56), (999, 1.009)])
def test_classifiers_are_interpolated_and_say_so(outputs, ms):
    found, interpolated = small().entry_ms(ClassifierSpec(96, outputs))
    assert found == pytest.approx(ms)
    assert interpolated


@pytest.mark.parametrize(
    "spec",
    [
        ClassifierSpec(96, 1001),
        ClassifierSpec(96, 1),
        ClassifierSpec(97, 10),
        ConvSpec(16, 16, 3, 9, 3, 1, "relu"),
    ],
)
def test_everything_else_is_missing_never_zero(spec):
    with pytest.raises(MissingEntries, match="lacks 1 block"):
        small().entry_ms(spec)
    assert small().missing([spec, STEM, spec]) == [spec]


def test_an_added_classifier_is_interpolated_from():
    table = small()
    table.entry_ms(ClassifierSpec(96, 50))
    table.add_block(ClassifierSpec(96, 60), fake_latency.block(0.5))
    assert table.entry_ms(ClassifierSpec(96, 60)) == (0.5, False)
    assert table.entry_ms(ClassifierSpec(96, 35))[0] == pytest.approx(0.02 + 0.48 / 2)


def test_missing_blocks_are_named_up_to_three_with_the_command():
    specs = [ConvSpec(16, 16, 3, width, 3, 1, "relu") for width in (16, 24, 32, 40)]
    text = str(small().missing_error(specs, "tiny"))
    assert "lacks 4 block(s)" in text
    assert "out_ch 32" in text
    assert "out_ch 40" not in text
    assert "elastic-nas profile local-ort-1t --space tiny" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "int8"}, "precision fp32, but local-ort-1t needs int8"),
        ({"threads": 2}, "number of threads 1, but"),
        ({"name": "pi"}, "device local-ort-1t, but pi"),
    ],
)
def test_a_table_of_another_device_does_not_fit(change, message):
    small().check_fits(DEVICE)
    with pytest.raises(TableError, match=message):
        small().check_fits(Device(**{**vars(DEVICE), **change}))


def test_a_stale_table_says_why():
    table = small()
    assert table.stale("1.0", fake_latency.FACTS) == ""
    assert table.stale("1.1", fake_latency.FACTS) == "measured with onnxruntime 1.0, not 1.1"
    for key, value in {"cpu": "Other", "flags": ["avx512"], "cores": 4, "arch": "arm"}.items():
        assert key in table.stale("1.0", {**fake_latency.FACTS, key: value})
    assert table.stale("1.0", {**fake_latency.FACTS, "os": "Linux 7", "load": [3]}) == ""


def test_a_table_of_a_whole_space_is_read_back(tmp_path):
    network = Network("compact", 10)
    table = fake_latency.table(network)
    table.write(tmp_path / "t.json")
    assert LatencyTable.read(tmp_path / "t.json") == table
    assert table.missing(spec for unit in network.units for spec in unit.specs()) == []
