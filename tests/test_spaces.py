import re
from itertools import pairwise, product
from pathlib import Path
from random import Random

import pytest
import yaml

from elastic_nas import plugins
from elastic_nas.errors import ConfigError, GenotypeError
from elastic_nas.genotype import canonical, count, largest, mutate, sample
from elastic_nas.network import Network
from elastic_nas.settings import from_settings
from elastic_nas.spaces import compact, tiny

CHILDREN = yaml.safe_load((Path(__file__).parent / "data/attentive_children.yaml").read_text())
OPTIONS = [
    f"{module.__name__.rpartition('.')[2]}:size={size},activation={activation}"
    for module in (tiny, compact)
    for size in module.SIZES
    for activation in ("relu", "hswish")
]


@pytest.fixture(scope="module", params=plugins.available("spaces"))
def space_network(request):
    """Each space as it is, at its own image size: nothing is computed here."""
    return Network(request.param)


def test_equal_blocks_mean_equal_canonical_genotypes(space_network):
    rng, dims = Random(0), space_network.dims
    for _ in range(200):
        one = sample(dims, rng)
        for other in (sample(dims, rng), mutate(dims, one, rng, 0.0)):
            same = space_network.blocks(one) == space_network.blocks(other)
            assert same == (one == other), (one, other)


def test_an_inactive_gene_changes_no_block(space_network):
    rng, dims = Random(1), space_network.dims
    for _ in range(100):
        raw = tuple(rng.randrange(len(dim.choices)) for dim in dims)
        assert space_network.blocks(raw) == space_network.blocks(canonical(dims, raw))


def test_settings_round_trip(space_network):
    rng, dims = Random(2), space_network.dims
    for _ in range(100):
        one = sample(dims, rng)
        assert from_settings(dims, space_network.settings(one)) == one


def test_units_depend_on_exactly_the_genes_that_matter(space_network):
    for unit in space_network.units:
        table = {indices: unit.spec_at(indices) for indices in product(*map(range, unit.sizes))}
        for place, size in enumerate(unit.sizes):
            lowered = {(*at[:place], 0, *at[place + 1 :]): at for at in table if at[place]}
            matters = any(table[low] != table[at] for low, at in lowered.items())
            assert matters == (size > 1), (unit.name, space_network.dims[unit.genes[place]].name)


def test_shapes_fit_together(space_network):
    rng = Random(3)
    for genotype in [sample(space_network.dims, rng) for _ in range(50)]:
        blocks = space_network.blocks(genotype)
        for before, after in pairwise(blocks):
            assert before.output_shape == after.input_shape


def test_dims_are_in_order(space_network):
    for position, dim in enumerate(space_network.dims):
        assert list(dim.choices) == sorted(set(dim.choices))
        if dim.needs:
            parent, least = dim.needs
            assert parent < position
            assert 1 <= least < len(space_network.dims[parent].choices)


def test_every_larger_gene_costs_more(space_network):
    """Repair and the search for neighbours rest on it."""
    rng, dims = Random(4), space_network.dims
    for _ in range(50):
        one = sample(dims, rng)
        macs = space_network.macs(one)
        for i, gene in enumerate(one):
            if gene:
                less = canonical(dims, (*one[:i], gene - 1, *one[i + 1 :]))
                assert space_network.macs(less) <= macs


def test_the_space_from_its_own_name_is_the_same(space_network):
    space = space_network.space
    assert plugins.create("spaces", space.name) == space
    assert Network(space.name).identity == space_network.identity


@pytest.mark.parametrize("name", OPTIONS)
def test_small_spaces_are_wide_for_every_option(name):
    network = Network(name, classes=2)
    assert count(network.dims) >= 10_000
    assert network.macs(network.smallest) <= network.macs(network.largest) / 5
    sizes = network.dims[0].choices
    assert network.resolution(network.largest) == max(sizes)
    assert network.resolution(network.smallest) == min(sizes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny:size=17", r"size of tiny must be one of \(8, 16, 24, 32\), got 17\."),
        ("compact:size=0", "size of compact must be one of"),
        ("tiny:activation=gelu", "activation must be relu or hswish, got 'gelu'"),
        ("compact:activation=", "activation must be relu or hswish, got ''"),
        ("bignas:size=16", r"no option 'size'\.\nOptions: none\."),
    ],
)
def test_bad_options(name, message):
    with pytest.raises(ConfigError, match=message):
        _ = Network(name).space


def test_a_space_from_a_path_works(tmp_path):
    file = tmp_path / "mine.py"
    text = Path(tiny.__file__).read_text()
    file.write_text(re.sub(r"head=\(.*?\)", "head=(72, 88)", text))
    mine = Network(f"{file}:size=8", classes=5)
    assert mine.space.name == "mine:size=8,activation=relu"
    assert mine.blocks(mine.largest)[-1].input_shape == (88,)
    assert mine.identity != Network("tiny:size=8", classes=5).identity


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("bignas", ((217_632_640, 3_844_372), (1_891_542_528, 11_015_222))),
        ("attentive_nas", ((203_389_568, 8_954_184), (1_939_335_808, 23_404_080))),
    ],
)
def test_ends_of_the_published_spaces(name, ends):
    network = Network(name, classes=1000)
    for genotype, expected in zip((network.smallest, network.largest), ends, strict=True):
        assert (network.macs(genotype), network.params(genotype)) == expected


@pytest.mark.parametrize(("name", "blocks"), [("bignas", 114), ("attentive_nas", 226)])
def test_distinct_blocks_per_resolution(name, blocks):
    network = Network(name)
    for resolution in range(len(network.dims[0].choices)):
        distinct = set()
        for unit in network.units:
            ranges = [
                (resolution,) if gene == 0 else range(size)
                for gene, size in zip(unit.genes, unit.sizes, strict=True)
            ]
            distinct |= {unit.spec_at(indices) for indices in product(*ranges)} - {None}
        assert len(distinct) == blocks


@pytest.mark.parametrize("name", CHILDREN["children"])
def test_published_attentive_children(name):
    child, network = CHILDREN["children"][name], Network("attentive_nas")
    keys = ("resolution", "width", "kernel", "expand", "depth")
    genotype = from_settings(network.dims, {key: child[key] for key in keys})
    assert network.macs(genotype) / 1e6 == pytest.approx(child["macs_m"], abs=0.1)
    if name == "A0":
        assert genotype == network.smallest


ATTENTIVE = Network("attentive_nas")
TINY = Network("tiny")


def _changed(network, **changes):
    return {**network.settings(largest(network.dims)), **changes}


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (ATTENTIVE, {"extra": 1}, "settings need exactly the keys resolution, width"),
        (ATTENTIVE, {"width": 16}, "must be lists"),
        (ATTENTIVE, {"resolution": 200}, "resolution must be one of 192, 224, 256, 288; got 200"),
        (ATTENTIVE, {"resolution": True}, "resolution must be one of"),
        (ATTENTIVE, {"kernel": [3, 3, 3]}, "stage4.kernel must be one of 3, 5; got None"),
        (ATTENTIVE, {"kernel": [3] * 8}, r"kernel \[3, 3, 3, 3, 3, 3, 3, 3\] does not fit"),
        (ATTENTIVE, {"kernel": [[3]] * 7}, r"got \[3\]"),
        (
            ATTENTIVE,
            {"depth": [2, 5, 6, 6, 8, 8, 2.0]},
            "stage7.depth must be one of 1, 2; got 2.0",
        ),
        (TINY, {"kernel": [[3, 3], [3, 3, 3], [3, 3]]}, "does not fit the depths"),
        (TINY, {"kernel": [[3, 3], [3, 3, 3], 3]}, "does not fit the depths"),
        (TINY, {"depth": [1, 3, 3]}, "does not fit the depths"),
        (TINY, {"kernel": [[3, 7], [3, 3, 3], [3, 3, 3]]}, "stage1.block2.kernel must be one of"),
    ],
)
def test_bad_settings_say_what_is_wrong(network, changes, message):
    with pytest.raises(GenotypeError, match=message):
        from_settings(network.dims, _changed(network, **changes))


def test_settings_that_are_no_mapping():
    with pytest.raises(GenotypeError, match="settings need exactly the keys"):
        from_settings(TINY.dims, [1, 2])
