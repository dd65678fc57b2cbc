"""What sources are called, and where they lie."""

from pathlib import Path

import pytest

from elastic_nas.data.place import anchored, name_of, saved_path


@pytest.mark.parametrize(
    ("source", "place", "name"),
    [
        ("digits", "digits", "digits"),
        ("./digits", "HERE/digits", "digits"),
        ("photos/", "HERE/photos", "photos"),
        (".", "HERE", "HERE"),
        ("sets/imagenet.yaml", "HERE/sets/imagenet.yaml", "imagenet"),
        ("hf:cifar10", "hf:cifar10", "cifar10"),
        ("hf:some/thing:small", "hf:some/thing:small", "thing-small"),
        ("hf:./saved", "hf:HERE/saved", "saved"),
        ("hf:/there/saved/", "hf:/there/saved", "saved"),
    ],
)
def test_sources_are_anchored_and_named(source, place, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert anchored(source) == place.replace("HERE", str(tmp_path))
    assert anchored(anchored(source)) == anchored(source)
    assert name_of(source) == name.replace("HERE", tmp_path.name)


def test_only_paths_are_paths():
    assert saved_path("hf:/x") == Path("/x")
    assert saved_path("hf:~/x") == Path.home() / "x"
    assert saved_path("hf:x/y") is None
    assert saved_path("/x") is None
