"""Equal pictures: on one side, of one class, or left out; nothing else is lost."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elastic_nas.config import DataConfig
from elastic_nas.data import dataset as dataset_module
from elastic_nas.data.dataset import SHARES_ALONE, load_dataset, recorded
from elastic_nas.data.duplicates import sort_out
from elastic_nas.data.record import LEFT_OUT
from elastic_nas.data.split import ArrayImages, Part, Source
from elastic_nas.errors import DataError

PARTS = (["all"], ["train", "test"], ["train", "val"], ["train", "val", "test"])
CLASSES = ("ant", "bee")


class Remote(ArrayImages):
    """Images whose content is not known beforehand."""

    by_content = False


def part_of(pictures, labels, name, kind=ArrayImages):
    """Images of one pixel each, equal where their numbers are."""
    numbers = np.array(pictures, np.uint8)[:, None, None, None]
    names = [f"{name}/{CLASSES[label]}/{row}" for row, label in enumerate(labels)]
    images = kind(np.repeat(numbers, 3, axis=3))
    return Part(names, np.array(labels, np.int64), images)


def source_of(kind=ArrayImages, **parts):
    """A source of parts that are given as lists of (picture, label)."""
    made = {
        name: part_of([p for p, _ in rows], [label for _, label in rows], name, kind)
        for name, rows in parts.items()
    }
    return Source("made", "made", CLASSES, made)


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def ordinary(root, parts=("",), count=8):
    """Class folders of different pictures."""
    for number, part in enumerate(parts):
        for label, name in enumerate(CLASSES):
            for row in range(count):
                save(root / part / name / f"{row}.png", 1000 * number + 100 * label + row)


def sides_of(dataset):
    return dict(zip(dataset.record.names, dataset.record.sides_N.tolist(), strict=True))


@st.composite
def sources(draw):
    rows = st.tuples(st.integers(0, 30), st.integers(0, 1))
    names = draw(st.sampled_from(PARTS))
    return source_of(**{name: draw(st.lists(rows, min_size=1, max_size=40)) for name in names})


@given(sources(), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_no_picture_is_on_two_sides_and_nothing_else_is_lost(source, seed):
    found = sort_out(source, "drop")
    try:
        splits = dataset_module._splits(source, seed, SHARES_ALONE, found.parts)
    except DataError:  # a class or a part has too few pictures left; see below
        return
    where, classes, there = defaultdict(set), defaultdict(set), defaultdict(set)
    for name, part in source.parts.items():
        for picture, label in zip(part.images.pixels_NHWC[:, 0, 0, 0], part.labels, strict=True):
            classes[picture].add(int(label))
            there[picture].add(name)
    used = 0
    for side, split in splits.items():
        assert len(split)
        for picture in split.images.pixels_NHWC[split.rows, 0, 0, 0]:
            where[picture].add(side)
            used += 1
    assert all(len(sides) == 1 for sides in where.values())
    assert set(where) == {picture for picture, labels in classes.items() if len(labels) == 1}
    staying = {
        picture: max(names, key=["all", "train", "val", "test"].index)
        for picture, names in there.items()
    }
    assert used == sum(
        len(classes[picture]) == 1 and staying[picture] == name
        for name, part in source.parts.items()
        for picture in part.images.pixels_NHWC[:, 0, 0, 0]
    )


@given(sources())
@settings(max_examples=50, deadline=None)
def test_keep_leaves_nothing_out_and_counts_the_same(source):
    kept, dropped = sort_out(source, "keep"), sort_out(source, "drop")
    for name, part in source.parts.items():
        assert kept.parts[name].rows.tolist() == list(range(len(part.labels)))
        assert not kept.parts[name].copied.any()
    assert list(kept.counts.values()) == list(dropped.counts.values())


def test_a_picture_in_train_and_test_leaves_train(tmp_path, capsys):
    ordinary(tmp_path, ("train", "test"))
    for row in range(3):
        save(tmp_path / "test" / "ant" / f"IMG_{row}.png", row)
    dataset = load_dataset(str(tmp_path))
    sides = sides_of(dataset)
    assert [sides[f"train/ant/{row}.png"] for row in range(3)] == [LEFT_OUT] * 3
    assert sides["test/ant/IMG_0.png"] == 2
    assert dataset.record.head.copies == {"in train and test: left out of train": 3}
    said = capsys.readouterr().err
    assert "3 images lie in train and test: left out of train" in said
    assert "'train/ant/0.png' (class 'ant') = 'test/ant/IMG_0.png' (class 'ant')" in said


def test_equal_pixels_in_other_files_are_equal(tmp_path):
    ordinary(tmp_path, ("train", "test"))
    Image.open(tmp_path / "train" / "bee" / "0.png").save(tmp_path / "test" / "bee" / "x.bmp")
    assert sides_of(load_dataset(str(tmp_path)))["train/bee/0.png"] == LEFT_OUT


def test_copies_of_one_class_are_trained_on_and_of_two_are_left_out(tmp_path, capsys):
    ordinary(tmp_path)
    for row in range(4):
        save(tmp_path / "ant" / f"copy{row}.png", row)
    save(tmp_path / "bee" / "ant.png", 7)
    dataset = load_dataset(str(tmp_path))
    sides = sides_of(dataset)
    assert {sides[f"ant/{row}.png"] for row in range(4)} == {0}
    assert {sides[f"ant/copy{row}.png"] for row in range(4)} == {0}
    assert sides["bee/ant.png"] == sides["ant/7.png"] == LEFT_OUT
    assert "'ant/7.png' (class 'ant') = 'bee/ant.png' (class 'bee')" in capsys.readouterr().err


def test_keep_is_the_split_by_names_alone(tmp_path):
    ordinary(tmp_path)
    plain = sides_of(load_dataset(str(tmp_path)))
    save(tmp_path / "bee" / "3.png", 3)
    kept = load_dataset(DataConfig(source=str(tmp_path), duplicates="keep"))
    assert sides_of(kept) == plain
    assert kept.record.head.copies == {"in two classes: kept": 2}


def test_a_class_of_copies_alone_is_an_error_that_leads_on(tmp_path):
    ordinary(tmp_path)
    for row in range(8):
        save(tmp_path / "bee" / f"{row}.png", 100)
    with pytest.raises(DataError, match=r"'bee'.* all but 1 of its 8 .*duplicates=keep"):
        load_dataset(str(tmp_path))


def test_a_part_of_copies_alone_is_an_error_that_leads_on():
    rows = [(row, row % 2) for row in range(8)]
    source = source_of(train=rows, val=rows, test=rows[:4])
    with pytest.raises(DataError, match=r"in train are copies .*duplicates=keep"):
        dataset_module._splits(source, 0, SHARES_ALONE, sort_out(source, "drop").parts)
    source = source_of(train=[(row + 10, row % 2) for row in range(8)], val=rows, test=rows)
    with pytest.raises(DataError, match=r"no images left in val: .*duplicates=keep"):
        dataset_module._splits(source, 0, SHARES_ALONE, sort_out(source, "drop").parts)


def test_images_of_unknown_content_are_not_compared():
    rows = [(0, 0), (0, 0), (1, 1)]
    found = sort_out(source_of(Remote, train=rows, test=rows), "drop")
    assert not found.counts
    assert found.parts["train"].rows.tolist() == [0, 1, 2]


def test_what_is_left_out_is_in_the_record():
    rows = [(row, row % 2) for row in range(8)]
    source = source_of(train=rows, test=rows[:2])
    found = sort_out(source, "drop")
    splits = dataset_module._splits(source, 0, SHARES_ALONE, found.parts)
    facts = {
        "seed": 0,
        "statistics": "imagenet",
        "preprocess": dataset_module.Preprocess((0.5,) * 3, (0.2,) * 3).describe(),
        "flip": True,
        "typical_size": 1,
        "copies": dict(found.counts),
    }
    record = recorded(source, splits, facts)
    assert record.sides_N[:2].tolist() == [LEFT_OUT] * 2
    assert len(record.names) == 10
