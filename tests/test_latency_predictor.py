"""Predictions by look-up: equal to the slow sum, for every space and any genotype."""

import subprocess
import sys
from random import Random

import fake_latency
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_nas import additive, plugins
from elastic_nas.additive import AdditiveCost, file_bytes, macs, params
from elastic_nas.errors import GenotypeError, MissingEntries, TableError
from elastic_nas.genotype import canonical, sample
from elastic_nas.latency.micromodels import child_model
from elastic_nas.latency.predictor import Predictor
from elastic_nas.network import Network

SPACES = {name: Network(name, 10) for name in plugins.available("spaces")}


@pytest.fixture(params=SPACES)
def network(request):
    return SPACES[request.param]


def random_genotypes(network, n, seed=0):
    """(n, genes) of any genes, inactive ones too."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, len(dim.choices), n) for dim in network.dims], axis=1)


def test_look_ups_equal_the_sum_over_blocks(network):
    table = fake_latency.table(network)
    predictor = Predictor(network, table)
    genotypes = random_genotypes(network, 50)
    slow = [
        0.02 + sum((table.entry_ms(s)[0] - 0.004) / 1.2 for s in network.blocks(tuple(map(int, g))))
        for g in genotypes
    ]
    np.testing.assert_allclose(predictor.predict_ms(genotypes), slow, rtol=1e-12)
    np.testing.assert_allclose(predictor.bound_ms(genotypes), 1.05 * np.array(slow), rtol=1e-12)
    assert predictor.promise


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(SPACES)), st.integers(0, 2**32), st.integers(1, 40))
def test_any_batch_in_any_order_costs_the_same(name, seed, n):
    network = SPACES[name]
    genotypes = random_genotypes(network, n, seed)
    slow = [network.macs(tuple(map(int, g))) for g in genotypes]
    assert macs(network, genotypes).tolist() == slow
    fresh = AdditiveCost(network, lambda spec: spec.costs.macs)
    assert fresh(genotypes).tolist() == slow  # filled by this batch only
    assert fresh(genotypes[::-1]).tolist() == slow[::-1]


def test_inactive_genes_change_nothing(network):
    genotypes = random_genotypes(network, 200)
    active = np.array([canonical(network.dims, tuple(map(int, g))) for g in genotypes])
    needed = any(dim.needs is not None for dim in network.dims)
    assert (genotypes != active).any() == needed
    for cost in (macs, params, file_bytes):
        assert cost(network, genotypes).tolist() == cost(network, active).tolist()
    slow = [network.params(tuple(map(int, g))) for g in genotypes[:20]]
    assert params(network, genotypes[:20]).tolist() == slow


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64])
def test_all_integer_types_and_chunks(kind, monkeypatch):
    network = SPACES["tiny"]
    genotypes = random_genotypes(network, 10)
    whole = macs(network, genotypes)
    monkeypatch.setattr(additive, "CHUNK", 3)
    assert macs(network, genotypes.astype(kind)).tolist() == whole.tolist()
    assert macs(network, np.asfortranarray(genotypes.astype(kind))).tolist() == whole.tolist()


def test_units_that_share_no_table_agree_with_merged_ones(monkeypatch, network):
    genotypes = random_genotypes(network, 20)
    merged = AdditiveCost(network, lambda spec: spec.costs.params)(genotypes)
    monkeypatch.setattr(additive, "MAX_TABLE", 1)
    alone = AdditiveCost(network, lambda spec: spec.costs.params)(genotypes)
    assert merged.tolist() == alone.tolist()


def test_each_distinct_block_is_valued_once_and_only_when_met():
    network, seen = SPACES["bignas"], []
    cost = AdditiveCost(network, lambda spec: seen.append(spec) or 1.0)
    blocks = network.blocks(network.largest)
    assert cost([network.largest]).tolist() == [len(blocks)]
    assert set(seen) == set(blocks)
    cost(random_genotypes(network, 3000))
    assert len(seen) == len(set(seen))


def test_no_children_cost_nothing(network):
    assert macs(network, np.zeros((0, len(network.dims)), int)).tolist() == []
    assert macs(network, []).tolist() == []


@pytest.mark.parametrize(
    "genotypes",
    [[0] * 25, [[0] * 24], [[0.0] * 25], [[0] * 24 + [9]], [[-1] + [0] * 24], [["a"] * 25]],
)
def test_what_is_no_batch_of_genotypes_is_refused(genotypes):
    with pytest.raises(GenotypeError):
        macs(SPACES["tiny"], np.array(genotypes))


def test_file_sizes_are_estimated_from_above(network):
    rng = Random(4)
    children = [network.smallest, sample(network.dims, rng), sample(network.dims, rng)]
    if network.space.name.startswith("tiny"):
        children += [network.largest, *(sample(network.dims, rng) for _ in range(10))]
    for child, estimate in zip(children, file_bytes(network, np.array(children)), strict=True):
        actual = len(child_model(network, child, 0))
        assert actual + 20 * 1024 <= estimate  # room for metadata
        assert estimate <= 1.03 * actual + 32 * 1024


def test_a_table_that_lacks_blocks_is_refused_at_once():
    network = SPACES["tiny"]
    table = fake_latency.table(network)
    del table.blocks[network.blocks(network.largest)[3]]
    with pytest.raises(MissingEntries, match=r"lacks 1 block.*\n.*--space tiny"):
        Predictor(network, table)


def test_a_table_without_this_networks_model_is_refused():
    network = SPACES["tiny"]
    table = fake_latency.table(network)
    table.models.clear()
    with pytest.raises(TableError, match=r"no fitted model of tiny.\n.*elastic-nas profile"):
        Predictor(network, table)


def test_other_numbers_of_classes_are_interpolated_and_say_so():
    table = fake_latency.table(SPACES["tiny"])
    assert not Predictor(SPACES["tiny"], table).interpolated
    other = Predictor(Network("tiny", 37), table)
    assert other.interpolated
    known = Predictor(SPACES["tiny"], table)
    genotypes = random_genotypes(SPACES["tiny"], 5)
    assert (other.predict_ms(genotypes) > known.predict_ms(genotypes)).all()
    with pytest.raises(MissingEntries):
        Predictor(Network("tiny", 1001), table)


def test_without_enough_children_there_is_no_bound():
    network = SPACES["tiny"]
    table = fake_latency.table(network, bounded=7)
    predictor = Predictor(network, table)
    assert not predictor.promise
    with pytest.raises(TableError, match=r"for a bound of 95\.0%: 7, but it takes 19"):
        predictor.bound_ms(random_genotypes(network, 1))


def test_a_stale_table_promises_nothing():
    network = SPACES["tiny"]
    predictor = Predictor(network, fake_latency.table(network), stale="another version")
    assert predictor.stale == "another version"
    assert not predictor.promise
    assert np.isfinite(predictor.bound_ms(random_genotypes(network, 3))).all()


def test_predicting_imports_nothing_heavy(tmp_path):
    fake_latency.table(SPACES["tiny"]).write(tmp_path / "t.json")
    program = """if True:
        import sys
        from pathlib import Path
        import numpy as np
        from elastic_nas.additive import file_bytes
        from elastic_nas.latency.devices import load_device
        from elastic_nas.latency.predictor import Predictor
        from elastic_nas.latency.table import LatencyTable
        from elastic_nas.machine import environment
        from elastic_nas.network import Network
        from elastic_nas.runtimes.onnxruntime_cpu import Runtime
        network, table = Network("tiny", 10), LatencyTable.read(Path(sys.argv[1]))
        table.check_fits(load_device("local-ort-1t"))
        predictor = Predictor(network, table, stale=table.stale(Runtime().version, environment()))
        genotypes = np.zeros((3, len(network.dims)), np.int8)
        predictor.bound_ms(genotypes), file_bytes(network, genotypes)
        heavy = {"torch", "onnx", "onnxruntime", "scipy"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "t.json")], check=True)
