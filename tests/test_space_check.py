"""Spaces and strategies from files that are not what they must be: one message, with the file."""

from random import Random

import numpy as np
import pytest
from fake_search import DIMS, costs, evaluator
from small_run import refused

from elastic_nas.budgets import Budgets
from elastic_nas.errors import ConfigError
from elastic_nas.genotype import largest
from elastic_nas.network import Network
from elastic_nas.search.driver import asked, search
from elastic_nas.search.history import History

SPACE = """
from dataclasses import dataclass
from elastic_nas.genotype import Dim
from elastic_nas.specs import Unit
from elastic_nas.specs.conv import ConvSpec
from elastic_nas.spaces import tiny

@dataclass(frozen=True)
class Space(tiny.Space):
    @property
    def dims(self):
        dims = tiny.Space(8).dims
        return DIMS

    @property
    def units(self):
        units = tiny.Space(8).units
        return UNITS
"""


def written(folder, dims="dims", units="units"):
    file = folder / "mine.py"
    file.write_text(SPACE.replace("DIMS", dims).replace("UNITS", units))
    return file


def test_a_sound_space_is_used(tmp_path):
    assert Network(str(written(tmp_path)), 10).macs(Network("tiny:size=8", 10).smallest) > 0


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ("None", "dims must be a tuple of Dim"),
        ("list(dims)", "dims must be a tuple of Dim"),
        ("()", "it has 0 dims"),
        ("(*dims, 3)", "dims must be a tuple of Dim"),
        ("dims * 1000", "dims; 1 to 1000 can be used"),
        ("(*dims, dims[0])", "two dims have the same name"),
        ("dims[1:]", "its first dim must be resolution"),
        ("(*dims, Dim('x.kernel', ()))", "x.kernel has 0 choices"),
        ("(*dims, Dim('x.kernel', (5, 3)))", "must ascend"),
        ("(*dims, Dim('x.kernel', (3, 3)))", "must ascend"),
        ("(*dims, Dim('x.kernel', (-3, 3)))", "0 to 100,000 can be"),
        ("(*dims, Dim('x.kernel', (3, 10**400)))", "0 to 100,000 can be"),
        ("(*dims, Dim('x.kernel', (True, 3)))", "must be whole numbers"),
        ("(*dims, Dim('x.kernel', (3.0,)))", "must be whole numbers"),
        ("(*dims, Dim('x.kernel', [3]))", "must be whole numbers"),
        ("(*dims, Dim('x.kernel', None))", "must be whole numbers"),
        ("(*dims, Dim('x.kernel', (3,), needs=(len(dims), 0)))", "does not stand before it"),
        ("(*dims, Dim('x.kernel', (3,), needs=(-1, 0)))", "does not stand before it"),
        ("(*dims, Dim('x.kernel', (3,), needs=(0, 99)))", "which has none such"),
        ("(*dims, Dim('x.kernel', (3,), needs='ab'))", "no pair of position and index"),
        ("(*dims, Dim('x.colour', (3,)))", "a dim is called 'x.colour'"),
        ("(*dims, Dim('a\\0.kernel', (3,)))", "a dim is called"),
        ("(*dims, Dim(7, (3,)))", "the name of a dim must be a text"),
        ("1 / 0", "fails when it is used: ZeroDivisionError"),
    ],
)
def test_dims_that_are_none_are_named(tmp_path, dims, said):
    file = written(tmp_path, dims=dims)
    with pytest.raises(ConfigError) as error:
        _ = Network(str(file), 10).dims
    assert said in str(error.value)
    assert str(file) in str(error.value)


UNIT = "Unit('more', (), tiny.Space(8).dims, lambda: {})"


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ("None", "units must be a tuple of Unit"),
        ("()", "it has 0 units"),
        ("(*units, units[0])", "two units have the same name"),
        ("(*units, 3)", "units must be a tuple of Unit"),
        (f"(*units, {UNIT.format('1 / 0')})", "fails when it is used: ZeroDivisionError"),
        (f"(*units, {UNIT.format('7')})", "more builds 7, which is no block"),
        ("(*units, Unit('a\\0b', (), tiny.Space(8).dims, lambda: None))", "a unit is called"),
        ("[][0]", "fails when it is used: IndexError"),
    ],
)
def test_units_that_are_none_are_named(tmp_path, units, said):
    file = written(tmp_path, units=units)
    message = refused("describe", str(file))
    assert said in message
    assert str(file) in message


class Odd:
    """A strategy that asks for whatever a test wants."""

    def __init__(self, ask=lambda: largest(DIMS), tell=lambda *_: None):
        self.ask, self.tell, self.rng = ask, tell, Random(0)


@pytest.mark.parametrize(
    "found",
    [
        None, 7, "0,1", (), [0], (0,) * 24, (0,) * 26, (0.0,) * 25, (True,) * 25, (-1,) * 25,
        (99,) * 25, (10**400,) * 25, ("0",) * 25, {0: 1}, [[0]] * 25, (0,) * 10**6, float("nan"),
    ],
    ids=lambda found: repr(found)[:20],
)  # fmt: skip
def test_what_a_strategy_asks_for_is_looked_at(found):
    with pytest.raises(ConfigError, match=r"the strategy '.*test_space_check.py' asked for"):
        asked(Odd(lambda: found), DIMS)


def test_an_array_of_numbers_is_a_genotype_and_is_made_canonical():
    child = asked(Odd(lambda: list(np.array(largest(DIMS)))), DIMS)
    assert child == largest(DIMS)
    assert all(type(gene) is int for gene in child)


def test_strategies_that_fail_are_named(tmp_path):
    def fails(*_):
        raise RuntimeError("odd")

    for odd, what in ((Odd(ask=fails), "ask"), (Odd(tell=fails), "tell")):
        history = History(tmp_path / what, {"weights": "w"}, DIMS)
        with pytest.raises(ConfigError, match=f"fails when its `{what}` is called"):
            search(DIMS, odd, evaluator(), costs(), Budgets(), history, 9, Random(0))
