import contextlib
import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_nas.errors import GenotypeError
from elastic_nas.genotype import (
    Dim,
    Dims,
    canonical,
    check,
    children,
    count,
    crossover,
    format_genotype,
    is_active,
    largest,
    mutate,
    parse_genotype,
    sample,
    sample_genes,
    smallest,
)
from elastic_nas.network import Network

NESTED: Dims = (
    Dim("a", (1, 2, 3)),
    Dim("b", (1, 2), needs=(0, 1)),
    Dim("c", (1, 2, 3), needs=(1, 1)),
    Dim("d", (1, 2), needs=(0, 2)),
    Dim("e", (5,)),
)
# a=0: 1; a=1: b in {0, 1 x 3} = 4; a=2: 4 x 2 = 8
NESTED_COUNT = 13


@st.composite
def some_dims(draw: st.DrawFn) -> Dims:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    dims: list[Dim] = []
    for i, size in enumerate(sizes):
        parent = draw(st.none() | st.integers(0, i - 1)) if i else None
        least = None if parent is None else draw(st.integers(0, sizes[parent] - 1))
        needs = None if parent is None or least is None else (parent, least)
        dims.append(Dim(f"gene{i}", tuple(range(size)), needs))
    return tuple(dims)


def test_children_of_nested_needs_counted_by_hand():
    assert count(NESTED) == NESTED_COUNT == len(set(children(NESTED)))


@given(some_dims())
def test_count_is_what_enumeration_finds(dims):
    assert count(dims) == len(list(children(dims)))


@pytest.mark.parametrize(
    ("name", "expected"), [("bignas", 235_929_600), ("attentive_nas", 440_301_256_704)]
)
def test_published_spaces_have_as_many_children_as_published(name, expected):
    assert count(Network(name).dims) == expected


@given(some_dims(), st.integers(0, 999).map(Random))
def test_canonical_is_idempotent_and_every_operation_keeps_it(dims, rng):
    raw = tuple(rng.randrange(len(dim.choices)) for dim in dims)
    one, other = canonical(dims, raw), sample(dims, rng)
    drawn = (one, other, sample_genes(dims, rng), mutate(dims, one, rng, 0.5))
    for child in (*drawn, crossover(dims, one, other, rng)):
        assert check(dims, child) == canonical(dims, child)
    for position, gene in enumerate(one):
        assert gene == (raw[position] if is_active(dims, raw, position) else 0)


def test_a_gene_is_inactive_when_the_gene_of_its_gene_is():
    assert canonical(NESTED, (0, 1, 2, 1, 0)) == (0, 0, 0, 0, 0)
    assert not is_active(NESTED, (0, 1, 2, 1, 0), 2)
    assert canonical(NESTED, (1, 1, 2, 1, 0)) == (1, 1, 2, 0, 0)


def test_sample_is_uniform_over_canonical_children():
    rng, draws = Random(0), 13_000
    seen = Counter(sample(NESTED, rng) for _ in range(draws))
    assert set(seen) == set(children(NESTED))
    expected = draws / NESTED_COUNT
    chi_square = sum((n - expected) ** 2 / expected for n in seen.values())
    assert chi_square < 32.9  # 99.9 % quantile at 12 degrees of freedom


def test_sample_genes_draws_each_depth_equally_often():
    rng = Random(0)
    seen = Counter(sample_genes(NESTED, rng)[0] for _ in range(3000))
    assert all(900 < seen[gene] < 1100 for gene in range(3))


@given(some_dims(), st.integers(0, 999).map(Random), st.floats(0, 1))
def test_mutate_changes_something_where_there_is_anything_to_change(dims, rng, rate):
    one = sample(dims, rng)
    assert (mutate(dims, one, rng, rate) != one) == (count(dims) > 1)


def test_mutate_at_rate_zero_changes_one_gene():
    rng, one = Random(1), (2, 1, 1, 1, 0)
    for _ in range(100):
        other = mutate(NESTED, one, rng, 0.0)
        changed = [i for i in range(5) if one[i] != other[i]]
        assert len([i for i in changed if is_active(NESTED, other, i)]) == 1


def test_mutation_rate_is_the_share_of_redrawn_genes():
    dims = tuple(Dim(str(i), tuple(range(1000))) for i in range(1000))
    changed = sum(gene > 0 for gene in mutate(dims, smallest(dims), Random(0), 0.3))
    assert 260 < changed < 340


@given(some_dims(), st.integers(0, 999).map(Random))
def test_crossover_takes_genes_from_its_parents(dims, rng):
    one, other = sample(dims, rng), sample(dims, rng)
    child = crossover(dims, one, other, rng)
    for position, gene in enumerate(child):
        if is_active(dims, child, position):
            assert gene in (one[position], other[position])


def test_crossover_mixes():
    dims = tuple(Dim(str(i), (0, 1)) for i in range(100))
    child = crossover(dims, smallest(dims), largest(dims), Random(0))
    assert 30 < sum(child) < 70


@given(some_dims(), st.integers(0, 999).map(Random))
def test_text_round_trip(dims, rng):
    one = sample(dims, rng)
    assert parse_genotype(dims, format_genotype(one)) == one


def test_parse_returns_the_canonical_form_and_allows_spaces():
    assert parse_genotype(NESTED, " 0, 1,2 ,1,0\n") == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a genotype; write 5 choice indices joined by commas, such as 0,0,0,0,0."),
        ("0,0,x,0,0", "is not a genotype"),
        ("0,0,-1,0,0", "is not a genotype"),
        ("0,0,1.0,0,0", "is not a genotype"),
        ("0,0,²,0,0", "is not a genotype"),
        ("0,0,,0,0", "is not a genotype"),
        ("9" * 5000, "is not a genotype"),
        ("0,0", "this space has 5 genes, the genotype has 2."),
        ("0,0,3,0,0", "gene c is 3, but it must be 0 to 2 (for 1, 2, 3)."),
    ],
)
def test_parse_says_what_is_wrong(text, message):
    with pytest.raises(GenotypeError, match=re.escape(message)):
        parse_genotype(NESTED, text)


@given(st.text())
@settings(max_examples=200)
def test_parse_never_fails_otherwise(text):
    with contextlib.suppress(GenotypeError):
        parse_genotype(NESTED, text)


def test_check_refuses_negative_genes():
    with pytest.raises(GenotypeError, match="gene a is -1"):
        check(NESTED, (-1, 0, 0, 0, 0))


def test_ends():
    assert smallest(NESTED) == (0, 0, 0, 0, 0)
    assert largest(NESTED) == (2, 1, 2, 1, 0)
