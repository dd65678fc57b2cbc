import contextlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.budgets import (
    Budgets,
    Costs,
    check_feasible,
    format_count,
    format_duration,
    format_size,
    parse_count,
    parse_duration,
    parse_size,
    violations,
)
from elastic_nas.errors import ConfigError, InfeasibleBudget
from elastic_nas.genotype import Dim
from elastic_nas.intervals import wilson

DIMS = (Dim("a", (1, 2, 3)), Dim("b", (1, 2)))


def fake_costs(least_ms=1.2345) -> Costs:
    """The bound is `least_ms` plus the sum of the genes; parameters are whole numbers."""
    return Costs(
        predicted_ms=lambda g: g.sum(axis=1) + 1.0,
        bound_ms=lambda g: g.sum(axis=1) + least_ms,
        params=lambda g: 1000 * (g[:, 0] + 1),
        macs=lambda g: 2e6 + g[:, 1],
        size_bytes=lambda g: 4000 * (g[:, 0] + 1),
        memory_bytes=lambda g: 50_000 + g[:, 1],
    )


@pytest.mark.parametrize(
    ("text", "ms"),
    [("5ms", 5), ("0.005s", 5), ("800us", 0.8), ("800 µs", 0.8), ("800μs", 0.8), (" 1e1 MS ", 10)],
)
def test_durations(text, ms):
    assert parse_duration(text) == pytest.approx(ms, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2M", 2e6),
        ("300M", 3e8),
        ("1.5G", 1.5e9),
        ("250k", 2.5e5),
        ("1200000", 1.2e6),
        (".5B", 5e8),
    ],
)
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "size"), [("4MB", 4e6), ("500kB", 5e5), ("4000000", 4e6), ("7B", 7), ("1 gb", 1e9)]
)
def test_sizes_are_powers_of_ten(text, size):
    assert parse_size(text) == size


BAD = [
    "",
    " ",
    "ms",
    "-",
    "-5ms",
    "0ms",
    "0",
    "-3",
    "nan",
    "inf",
    "nanms",
    "infms",
    "-inf",
    "1e999s",
]
BAD += ["1e-999s", "5 parsecs", "5,0ms", "0x10", "1_000", "५ms", "5ms5ms", "5 m s", "1e999", "--3"]


@pytest.mark.parametrize("parse", [parse_duration, parse_count, parse_size])
@pytest.mark.parametrize("text", BAD)
def test_what_is_no_budget_is_refused(parse, text):
    with pytest.raises(ConfigError, match=re.escape(repr(text))):
        parse(text)


def test_a_duration_needs_its_unit_and_the_message_says_which_exist():
    for text in ("5", "5 parsecs"):
        with pytest.raises(ConfigError) as caught:
            parse_duration(text)
        assert str(caught.value) == (
            f"'{text}' is not a duration: write a positive number with a unit us, ms or s, such as "
            "5ms."
        )
    with pytest.raises(ConfigError, match="MiB"):
        parse_size("4MiB")
    with pytest.raises(ConfigError, match="a duration must be positive and finite, got '-5ms'"):
        parse_duration("-5ms")


PAIRS = [
    (parse_duration, format_duration),
    (parse_count, format_count),
    (parse_size, format_size),
]


@pytest.mark.parametrize(("parse", "show"), PAIRS)
@given(value=st.floats(1e-6, 1e15))
def test_what_is_shown_can_be_read_again(parse, show, value):
    assert parse(show(value)) == pytest.approx(value, rel=5e-4)
    assert parse(show(value).replace(" ", "")) == parse(show(value))


@pytest.mark.parametrize("parse", [parse_duration, parse_count, parse_size])
@given(text=st.text() | st.from_regex(r"[-+.\deE]*\s?(ms|us|k|MB)?", fullmatch=True))
def test_no_text_does_anything_else_than_parse_or_refuse(parse, text):
    with contextlib.suppress(ConfigError):
        assert 0 < parse(text) < float("inf")


def test_shown_forms():
    assert [format_duration(ms) for ms in (0.8, 4.32149, 1234.5)] == [
        "0.8 ms",
        "4.321 ms",
        "1.234 s",
    ]
    assert [format_count(n) for n in (7, 250e3, 217632640, 1.5e9)] == [
        "7",
        "250 k",
        "217.6 M",
        "1.5 G",
    ]
    assert [format_size(n) for n in (7, 5e5, 4e6)] == ["7 B", "500 kB", "4 MB"]


def test_budgets_say_what_they_are():
    assert str(Budgets()) == "no budget"
    assert str(Budgets(5, 2e6, 3e8, 4e6, 2e6)) == (
        "latency <= 5 ms, parameters <= 2 M, multiply-accumulates <= 300 M, size <= 4 MB, "
        "peak memory <= 2 MB"
    )


def test_budgets_are_read_from_text_and_taken_as_numbers():
    read = Budgets.of("5ms", "2M", "300M", "4MB", "512kB")
    assert read == Budgets.of(5, 2e6, 3e8, 4e6, 512e3) == Budgets(5, 2e6, 3e8, 4e6, 512e3)
    assert Budgets.of() == Budgets()


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["latency_ms", "params", "macs", "size_bytes", "memory_bytes"])
def test_impossible_limits_are_refused(name, limit):
    with pytest.raises(ConfigError, match=f"the budget {name} must be positive and finite"):
        Budgets(**{name: limit})


def test_violation_is_the_summed_relative_overrun():
    genotypes = np.array([[0, 0], [1, 0], [2, 1]])
    costs = fake_costs(least_ms=1.0)
    assert violations(costs, Budgets(), genotypes).tolist() == [0, 0, 0]
    assert violations(costs, Budgets(latency_ms=2), genotypes).tolist() == [0, 0, 1]
    both = violations(costs, Budgets(latency_ms=2, params=1000), genotypes)
    assert both.tolist() == [0, 1, 3]
    assert violations(costs, Budgets(latency_ms=1), genotypes[:0]).shape == (0,)


def test_the_smallest_child_decides_what_is_feasible():
    check_feasible(DIMS, fake_costs(), Budgets(1.2345, 1000, 2e6, 4000, 50_000))
    with pytest.raises(InfeasibleBudget) as caught:
        check_feasible(DIMS, fake_costs(), Budgets(latency_ms=1.2))
    assert str(caught.value) == (
        "no child keeps latency <= 1.2 ms: the smallest child is bounded at 1.234 ms.\n"
        "Raise --latency to 1.24 ms or more, or choose a space with smaller children."
    )


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        (Budgets(latency_ms=2, params=999), "parameters <= 999: the smallest child has 1 k"),
        (Budgets(macs=1e6), "multiply-accumulates <= 1 M: the smallest child has 2 M"),
        (Budgets(size_bytes=3999), "size <= 3.999 kB: the smallest child has 4 kB"),
        (Budgets(memory_bytes=4e4), "peak memory <= 40 kB: the smallest child has 50 kB"),
    ],
)
def test_each_budget_is_named(budgets, message):
    with pytest.raises(InfeasibleBudget, match=re.escape(message)):
        check_feasible(DIMS, fake_costs(), budgets)


@given(st.floats(1e-3, 1e6))
def test_what_the_message_advises_is_enough(least_ms):
    costs = fake_costs(least_ms)
    with pytest.raises(InfeasibleBudget) as caught:
        check_feasible(DIMS, costs, Budgets(latency_ms=least_ms * 0.99))
    advised = re.search("--latency to (.*) or more", str(caught.value))
    assert advised is not None
    check_feasible(DIMS, costs, Budgets(latency_ms=parse_duration(advised[1])))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_of_newcombe_1998(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(pair):
    successes, n = pair
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(
    "limit",
    [True, 10**400, -(10**5000), float("nan"), float("inf"), 0, -1, "5", [1], {}],
    ids=lambda _: "limit",
)
def test_limits_that_are_no_positive_numbers_are_refused(limit):
    with pytest.raises(ConfigError, match="the budget params must be positive and finite, got"):
        Budgets(params=limit)
