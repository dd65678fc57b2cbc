from collections import Counter
from random import Random

import pytest

from elastic_nas import plugins
from elastic_nas.errors import ConfigError
from elastic_nas.genotype import Dim, Score, canonical, check, children, count, sample
from elastic_nas.strategies import evolution, random_search

DIMS = (
    Dim("a", (1, 2, 3)),
    Dim("b", (1, 2, 3), needs=(0, 1)),
    Dim("c", tuple(range(8))),
    Dim("d", tuple(range(8))),
    Dim("e", tuple(range(8))),
)


def tell_some(search, n=60, seed=0):
    rng = Random(seed)
    for _ in range(n):
        genotype = sample(DIMS, rng)
        search.tell(genotype, Score((rng.random(), rng.random()), max(0, rng.gauss(-1, 1))))


@pytest.fixture(params=plugins.available("strategies"))
def name(request):
    return request.param


def test_asks_canonical_children_before_and_after_tells(name):
    search = plugins.create("strategies", name, dims=DIMS, rng=Random(0))
    for _ in range(3):
        for _ in range(50):
            genotype = search.ask()
            assert check(DIMS, genotype) == canonical(DIMS, genotype)
        tell_some(search)


def test_the_same_tells_and_generator_give_the_same_asks(name):
    """The driver relies on it: a search that was interrupted goes on as if it had not been."""
    asked = []
    for asks_before in (0, 7):
        search = plugins.create("strategies", name, dims=DIMS, rng=Random(0))
        for _ in range(asks_before):
            search.ask()
        tell_some(search)
        search.rng.seed(5)
        asked.append([search.ask() for _ in range(20)])
    assert asked[0] == asked[1]


def test_accepts_children_it_never_asked_and_any_number_of_objectives(name):
    for objectives in ((0.1,), (0.1, 2.0), (0.1, 2.0, 3.0)):
        search = plugins.create("strategies", name, dims=DIMS, rng=Random(0))
        for genotype in list(children(DIMS))[:40]:
            search.tell(genotype, Score(objectives))
        search.ask()


def test_a_space_of_one_child_is_no_trouble(name):
    dims = (Dim("a", (1,)), Dim("b", (3,)))
    search = plugins.create("strategies", name, dims=dims, rng=Random(0))
    for _ in range(40):
        assert search.ask() == (0, 0)
        search.tell((0, 0), Score((0.5, 1.0)))


def test_every_option_can_be_set_as_text(name):
    search = plugins.create("strategies", name, dims=DIMS, rng=Random(0))
    options = {k: v for k, v in vars(search).items() if isinstance(v, (int, float))}
    text = ",".join(f"{key}={value}" for key, value in options.items())
    again = plugins.create("strategies", f"{name}:{text}", dims=DIMS, rng=Random(0))
    assert {key: getattr(again, key) for key in options} == options


def test_random_search_is_uniform():
    dims = DIMS[:2]
    search = random_search.Search(dims, Random(0))
    seen = Counter(search.ask() for _ in range(7000))
    assert len(seen) == count(dims) == 7
    assert all(850 < n < 1150 for n in seen.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("population_size=3", "population_size must be 4 to 1,000, got 3"),
        ("mutation_rate=1.5", "mutation_rate must be 0 to 1, got 1.5"),
        ("crossover_rate=-0.1", "crossover_rate must be 0 to 1"),
        ("mutation_rate=nan", "must be a finite number"),
    ],
)
def test_evolution_refuses_options_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        plugins.create("strategies", f"evolution:{options}", dims=DIMS, rng=Random(0))


@pytest.mark.parametrize(
    ("one", "other", "wins"),
    [
        (Score((1, 2)), Score((2, 2)), True),
        (Score((1, 2)), Score((1, 2)), False),
        (Score((1, 3)), Score((2, 2)), False),
        (Score((9, 9), 0.0), Score((1, 1), 0.1), True),
        (Score((9, 9), 0.1), Score((1, 1), 0.2), True),
        (Score((1, 1), 0.2), Score((2, 2), 0.2), True),
    ],
)
def test_constrained_domination(one, other, wins):
    found = evolution.domination([one, other])
    assert found[0, 1] == wins
    assert not (wins and found[1, 0])


def test_fronts_by_hand():
    points = {"a": (1, 4), "b": (2, 2), "c": (4, 1), "d": (2, 5), "e": (3, 3), "f": (5, 5)}
    members = [((i,), Score(xy)) for i, xy in enumerate(points.values())]
    names = [["abcdef"[g[0]] for g, _ in front] for front in evolution.fronts(members)]
    assert names == [["a", "b", "c"], ["d", "e"], ["f"]]


def test_crowding_distance_by_hand():
    scores = [Score(xy) for xy in ((0, 10), (1, 6), (4, 4), (10, 0))]
    inf = float("inf")
    assert evolution.crowding(scores) == pytest.approx([inf, 0.4 + 0.6, 0.9 + 0.6, inf])
    assert evolution.crowding([Score((1, 1))] * 3) == [inf, 0, inf]


def test_the_full_population_drops_its_worst_then_its_most_crowded():
    search = evolution.Search(DIMS, Random(0), population_size=4)
    kept = {(0,): (0, 10), (1,): (5, 5), (2,): (10, 0), (3,): (8, 8)}
    for genotype, objectives in kept.items():
        search.tell(genotype, Score(objectives))
    search.tell((4,), Score((2, 8)))
    assert {g for g, _ in search._population} == {(0,), (1,), (2,), (4,)}
    search.tell((5,), Score((4.5, 5.5)))  # all on one front now: (1,) and (5,) crowd each other
    assert {g for g, _ in search._population} == {(0,), (2,), (4,), (1,)}
    search.tell((6,), Score((0, 0), 1.0))
    assert (6,) not in {g for g, _ in search._population}


def test_evolution_asks_near_what_is_good():
    search = evolution.Search(DIMS, Random(0), population_size=10, mutation_rate=0.0)
    for c in range(8):
        search.tell((0, 0, c, 0, 0), Score((c, c)))
    for _ in range(2):
        search.tell((0, 0, 0, 0, 0), Score((0, 0)))
    asked = [search.ask() for _ in range(200)]
    assert sum(genotype[2] for genotype in asked) / 200 < 2.8  # 3.5 where all are as likely


@pytest.mark.parametrize("seed", range(6))
def test_many_children_told_at_once_leave_the_same_population(seed):
    """Scores of few values have many equals, whose order moves whenever they are ranked."""
    rng = Random(seed)
    steps = (4, 10, 1000)[seed % 3]
    members = [
        (sample(DIMS, rng), Score((rng.randrange(steps) / steps, rng.randrange(steps) / 7)))
        for _ in range(600)
    ]
    one, many = (
        plugins.create("strategies", "evolution:population_size=12", dims=DIMS, rng=Random(0))
        for _ in range(2)
    )
    for start in range(0, len(members), 150):
        part = members[start : start + 150]
        for member in part:
            one.tell(*member)
        many.tell_all(part)
        assert [(g, s) for g, s in one._population] == many._population
        assert one.ask() == many.ask()
