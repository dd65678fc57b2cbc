"""A table whose model does not follow from its own children is refused, whatever was changed."""

import json
from copy import deepcopy
from dataclasses import replace
from random import Random

import fake_latency
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_nas.errors import TableError
from elastic_nas.files import data_folder
from elastic_nas.latency.model import raw_model
from elastic_nas.latency.predictor import Predictor
from elastic_nas.latency.self_check import check_model
from elastic_nas.latency.table import LatencyTable
from elastic_nas.network import Network

NETWORK = Network("tiny:size=8", 10)
SHIPPED = sorted(path.name for path in data_folder("latency_tables").glob("*.json"))


@pytest.fixture
def table():
    return fake_latency.table(NETWORK)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_agree_with_themselves(name):
    table = LatencyTable.read(data_folder("latency_tables") / name)
    for identity, space in table.provenance["spaces"].items():
        network = Network(space, 1000)
        assert network.identity == identity
        check_model(network, table, fully=True)


def times_ten(table):
    table.blocks = {spec: replace(row, ms=10 * row.ms) for spec, row in table.blocks.items()}


def one_block(table):
    spec = NETWORK.blocks(NETWORK.largest)[0]
    table.blocks[spec] = replace(table.blocks[spec], ms=1.05 * table.blocks[spec].ms)


def of_model(**changes):
    def change(table):
        model = table.models[NETWORK.identity]
        table.models[NETWORK.identity] = replace(model, **changes)

    return change


def of_child(role, /, **changes):
    def change(table):
        place = next(i for i, row in enumerate(table.children) if row.role == role)
        table.children[place] = replace(table.children[place], **changes)

    return change


def negative(table):
    weights = (*fake_latency.WEIGHTS[:7], -0.1, 0.02)
    of_model(weights=weights)(table)


def of_others(table):
    table.children = [replace(row, space="another") for row in table.children]


def anchored(factor, genotype=NETWORK.smallest):
    def change(table):
        known = {row.genotype: row.ms for row in table.children if row.role == "fit"}
        row = {"classes": 10, "genotype": list(genotype)}
        row["ms"] = factor * known.get(genotype, 1.0)
        table.provenance["anchors"][NETWORK.identity] = [row]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (anchored(1.5), "its anchor children took 1.50 times what it says of the same"),
        (anchored(0.5), "its anchor children took 0.50 times"),
        (anchored(1.0, (0, 1)), "a child that this space has not: this space has 25 genes"),
        (anchored(1.0, (9,) * 25), "a child that this space has not: gene"),
        (of_child("fit", genotype=(0,) * 24), "a child that this space has not"),
        (of_child("calibrate", genotype=(9,) * 25), "a child that this space has not"),
        (times_ten, "its model is not the one that its blocks and its 20 children to fit on give"),
        (one_block, "its model is not the one"),
        (of_child("fit", ms=9.0), "its anchor children took"),
        (of_child("calibrate", ms=9.0), "the ratios of its bound are not those of its children"),
        (of_child("fit", role="verify"), "fitted on 20 children .*, but it holds 19 and 60"),
        (of_others, "fitted on 20 children and bounded by 60, but it holds 0 and 0"),
        (negative, "predicts 0 ms or less"),
        (of_model(weights=(1 / 1.2, *[0.0] * 7, 0.03)), "its model is not the one"),
        (of_model(weights=(1 / 1.2, 1e-9, *fake_latency.WEIGHTS[2:])), "its model is not the one"),
        (of_model(kind="scale"), "its model is not the one"),
        (of_model(ratios=(0.5,) * 60), "stored 0.5"),
        (of_model(ratios=(0.99,) * 60), "the ratios"),
        (of_model(mape=0.001), "give mape 0.0257.* stored is 0.001"),
        (of_model(within_5=0.5), "within_5"),
        (of_model(n_fit=0, ratios=()), "fitted on 0 children and bounded by 0"),
        (of_model(kind="raw"), "a bare sum of blocks, yet"),
    ],
)
def test_what_contradicts_itself_is_refused(table, change, message):
    anchored(1.1)(table)
    Predictor(NETWORK, table)
    change(table)
    with pytest.raises(TableError, match=f"contradicts itself about tiny:size=8: .*{message}") as e:
        Predictor(NETWORK, table)
    assert "measure anew: elastic-nas profile local-ort-1t --space tiny:size=8" in str(e.value)


@pytest.mark.parametrize("change", [{"kendall_tau": -0.5}, {"noise_floor": 0.3}])
def test_what_nothing_is_computed_from_is_compared_where_it_is_shown(table, change):
    of_model(**change)(table)
    Predictor(NETWORK, table)
    with pytest.raises(TableError, match="contradicts itself"):
        check_model(NETWORK, table, fully=True)


def test_a_bare_sum_needs_no_children(table):
    table.children = []
    table.models[NETWORK.identity] = raw_model()
    assert Predictor(NETWORK, table).unbounded


def test_a_prediction_that_is_not_positive_is_refused(table):
    """Blocks that none of the children has may still be changed: what they predict is looked at."""
    predictor = Predictor(NETWORK, table)
    predictor.model = replace(predictor.model, weights=(*fake_latency.WEIGHTS[:8], -9.0))
    with pytest.raises(TableError, match="ms for a child of tiny:size=8, which cannot be"):
        predictor.predict_ms(np.array([NETWORK.smallest]))


def test_a_bound_is_never_below_its_prediction():
    assert fake_latency.model(ratios=(0.9,) * 60).bound_factor() == 1


def test_children_of_another_number_of_classes_are_held_against_it_too():
    table = fake_latency.table(NETWORK)
    Predictor(Network("tiny:size=8", 100), table)
    times_ten(table)
    with pytest.raises(TableError, match="contradicts itself"):
        Predictor(Network("tiny:size=8", 100), table)


def test_a_figure_that_a_prediction_leans_on_cannot_change_unseen(tmp_path):
    """Each figure of the rows that a model was made of, one at a time, by a hundredth."""
    table = fake_latency.table(NETWORK)
    table.write(tmp_path / "t.json")
    text = (tmp_path / "t.json").read_text()
    fitted = {spec for row in table.children for spec in NETWORK.blocks(row.genotype)}
    for seed in range(60):
        parts, random = json.loads(text), Random(seed)
        rows = parts["children"]
        if seed % 2:
            rows = [row for row, spec in zip(parts["blocks"], table.blocks, strict=True)
                    if spec in fitted]  # fmt: skip
        row = random.choice(rows)
        for key in ("ms", "p10", "p90", "contended_p90"):
            row[key] *= 1.01
        if "round_ms" in row:
            row["round_ms"] = [1.01 * ms for ms in row["round_ms"]]
        (tmp_path / "t.json").write_text(json.dumps(parts))
        with pytest.raises(TableError, match="contradicts itself"):
            Predictor(NETWORK, LatencyTable.read(tmp_path / "t.json"))


JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3),
    st.sampled_from([10**18, 10**400, "x" * 10**5, "\x1b[2J", [], {}, [[]]]),
)  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


SOUND = fake_latency.table(NETWORK)
WRITTEN = {}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32),
    value=JSON,
    how=st.sampled_from(["replace", "delete", "double", "scale"]),
)
def test_what_a_damaged_table_predicts_is_what_the_sound_one_does(tmp_path, seed, value, how):
    """Or it is refused: nothing that predictions or bounds lean on changes unseen."""
    if not WRITTEN:
        SOUND.write(tmp_path / "t.json")
        WRITTEN["text"] = (tmp_path / "t.json").read_text()
        WRITTEN["bounds"] = bounds_of(tmp_path / "t.json")
    parts, random = json.loads(WRITTEN["text"]), Random(seed)
    part = random.choice(sorted(parts))
    holder = {part: parts[part]}
    *path, last = random.choice(list(places(holder)))
    target = parts
    for step in path:
        target = target[step]
    if how == "delete":
        del target[last]
    elif how == "double" and isinstance(target, list):
        target.append(deepcopy(target[last]))
    elif how == "scale" and isinstance(target[last], float):
        target[last] *= 1.1
    else:
        target[last] = value
    (tmp_path / "t.json").write_text(json.dumps(parts))
    try:
        found = bounds_of(tmp_path / "t.json")
    except TableError:
        return
    np.testing.assert_allclose(found, WRITTEN["bounds"], rtol=1e-3)


def bounds_of(path):
    """What children of measured blocks are bounded by."""
    predictor = Predictor(NETWORK, LatencyTable.read(path))
    genotypes = np.array([row.genotype for row in SOUND.children])
    bounds = predictor.bound_ms(genotypes)
    assert (bounds >= predictor.predict_ms(genotypes)).all()
    return bounds
