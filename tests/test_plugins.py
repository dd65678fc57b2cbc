import sys
from random import Random

import pytest

from elastic_nas import plugins
from elastic_nas.errors import ConfigError, UnknownName
from elastic_nas.genotype import Dim

DIMS = (Dim("a", (1, 2)),)

PLAIN_SPACE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Space:
    kind: ClassVar[str] = "mine"
    name: ClassVar[str] = "mine"
    dims: ClassVar[tuple] = ()
    units: ClassVar[tuple] = ()
    size: int = 4
    scale: float = 0.5
    wide: bool = False
    label: str = "x"
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "numpy.py"
    file.write_text(PLAIN_SPACE)
    return str(file)


def test_available_lists_public_modules_only():
    spaces = ["attentive_nas", "bignas", "compact", "ofa_mobilenetv3", "tiny"]
    assert plugins.available("spaces") == spaces
    assert {"evolution", "random_search"} <= set(plugins.available("strategies"))


@pytest.mark.parametrize("kind", plugins.CLASS_NAMES)
def test_every_plugin_offers_the_class_of_its_kind(kind):
    for name in plugins.available(kind):
        assert isinstance(getattr(plugins.load(kind, name), plugins.CLASS_NAMES[kind]), type)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UnknownName) as caught:
        plugins.load("spaces", "bignass")
    assert str(caught.value) == (
        "no space called 'bignass'; did you mean 'bignas'?\n"
        "Available spaces: attentive_nas, bignas, compact, ofa_mobilenetv3, tiny; a path to a .py "
        "file works too."
    )
    with pytest.raises(UnknownName, match=r"no strategy called 'zzz'\.\n"):
        plugins.load("strategies", "zzz")


@pytest.mark.parametrize("name", ["_mobile", "../errors", "os", "", "tiny.py"])
def test_only_public_modules_and_files_can_be_named(name):
    with pytest.raises(UnknownName):
        plugins.load("spaces", name)


def test_options_take_the_type_of_their_default(path):
    space = plugins.create("spaces", f"{path}:size=7,scale=2,wide=true,label=1.0")
    assert (space.size, space.scale, space.wide, space.label) == (7, 2.0, True, "1.0")
    assert type(space.scale) is float


def test_a_file_with_postponed_annotations_loads_and_replaces_no_module(path):
    import numpy as np

    assert plugins.create("spaces", path).size == 4
    assert sys.modules["numpy"] is np


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sise=8", "has no option 'sise'; did you mean 'size'?"),
        ("size", "option 'size' of .* needs a value"),
        ("kind=x", "has no option 'kind'"),
        ("size=big", "must be a whole number, got 'big'"),
        ("size=4.0", "must be a whole number"),
        ("size=" + "9" * 5000, "must be a whole number"),
        ("scale=much", "must be a finite number"),
        ("scale=nan", "must be a finite number, got 'nan'"),
        ("wide=1", "must be true or false, got '1'"),
        ("size=1,size=2", "option 'size' of '[^']*' is given twice"),
    ],
)
def test_bad_options_say_what_is_wrong(path, options, message):
    pattern = message.replace("?", r"\?")
    with pytest.raises(ConfigError, match=pattern):
        plugins.create("spaces", f"{path}:{options}")


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"Options: size=16, activation=relu\."):
        plugins.create("spaces", "tiny:depth=3")


def test_the_arguments_of_a_plugin_are_no_options():
    with pytest.raises(ConfigError, match="has no option 'rng'"):
        plugins.create("strategies", "random_search:rng=3", dims=DIMS, rng=Random(0))


def test_a_list_typed_field_is_no_option(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLAIN_SPACE + "    sizes: tuple[int, ...] = (1, 2)\n")
    with pytest.raises(ConfigError, match="has no option 'sizes'"):
        plugins.create("spaces", f"{file}:sizes=3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n", "defines no dataclass 'Space'"),
        ("class Space:\n    size = 1\n", "defines no dataclass 'Space'"),
        ("def broken(:\n", "fails when imported: SyntaxError"),
        ("raise SystemExit", "fails when imported: SystemExit"),
        ("import no_such_module\n", "fails when imported: ModuleNotFoundError"),
    ],
)
def test_files_that_are_no_plugins(tmp_path, content, message):
    file = tmp_path / "mine.py"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        plugins.create("spaces", str(file))


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    (tmp_path / "folder.py").mkdir()
    for name in ("nowhere.py", "folder.py"):
        with pytest.raises(UnknownName, match=f"no file '.*{name}'"):
            plugins.load("spaces", str(tmp_path / name))


def test_arguments_are_passed_as_they_are():
    rng = Random(0)
    search = plugins.create("strategies", "evolution:population_size=30", dims=DIMS, rng=rng)
    assert search.rng is rng
    assert search.population_size == 30


def test_an_instance_called_space_is_no_class(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLAIN_SPACE + "\nSpace = Space()\n")
    with pytest.raises(ConfigError, match="defines no dataclass"):
        plugins.create("spaces", str(file))
