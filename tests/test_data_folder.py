"""Folders of class folders: layouts, and what is wrong with some."""

import os

import numpy as np
import pytest
from PIL import Image

from elastic_nas.config import DataConfig
from elastic_nas.data import checked as checked_module
from elastic_nas.data import folder as folder_module
from elastic_nas.data import listing as listing_module
from elastic_nas.data.dataset import load_dataset
from elastic_nas.errors import DataError, UnknownName


def save(path, size=(12, 10), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Else classes and parts would hold the same pictures.
    rng = np.random.default_rng([seed, *"/".join(path.parts[-3:]).encode("utf-8", "replace")])
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def classes(root, counts, suffix="png"):
    for name, count in counts.items():
        for number in range(count):
            save(root / name / f"{number:03}.{suffix}")
    return root


def sizes(dataset):
    return len(dataset.train), len(dataset.validation), len(dataset.test)


def test_class_folders_alone_are_split_70_15_15(tmp_path):
    dataset = load_dataset(str(classes(tmp_path / "pets", {"dog": 20, "cat": 40})))
    assert dataset.name == "pets"
    assert dataset.labels == ("cat", "dog")
    assert dataset.flip
    assert sizes(dataset) == (42, 9, 9)
    assert np.bincount(dataset.train.labels).tolist() == [28, 14]
    assert np.bincount(dataset.validation.labels).tolist() == [6, 3]
    names = [split.name for split in (dataset.train, dataset.validation, dataset.test)]
    assert names == ["train", "search-validation", "test"]


def test_three_images_a_class_are_enough(tmp_path):
    assert sizes(load_dataset(str(classes(tmp_path, {"a": 3, "b": 4})))) == (3, 2, 2)


@pytest.mark.parametrize("tested", ["test", "val", "valid", "validation", "Test", "VAL"])
def test_one_given_part_is_the_test_split(tmp_path, tested):
    classes(tmp_path / "train", {"a": 50, "b": 2})
    classes(tmp_path / tested, {"a": 4, "b": 3})
    dataset = load_dataset(str(tmp_path))
    assert sizes(dataset) == (45, 7, 7)
    assert np.bincount(dataset.validation.labels).tolist() == [6, 1]
    assert dataset.test.labels.tolist() == [0] * 4 + [1] * 3


def test_all_three_parts_are_taken_as_they_are(tmp_path):
    for part, count in {"train": 5, "val": 2, "test": 3}.items():
        classes(tmp_path / part, {"a": count, "b": 1})
    assert sizes(load_dataset(str(tmp_path))) == (6, 3, 4)


def test_other_folders_beside_the_parts_make_two_readings(tmp_path):
    classes(tmp_path / "train", {"a": 3, "b": 3})
    classes(tmp_path / "test", {"a": 1, "b": 1})
    save(tmp_path / "plots" / "x.png")
    with pytest.raises(DataError, match=r"data\.parts=test:test,train:train") as caught:
        load_dataset(str(tmp_path))
    assert "data.parts=none" in str(caught.value)
    given = DataConfig(source=str(tmp_path), parts="test:test,train:train")
    data = load_dataset(given)
    assert data.labels == ("a", "b")
    assert data.record.head.left_out == {"folders beside the parts": 1}
    none = DataConfig(source=str(tmp_path), parts="none")
    with pytest.raises(DataError, match=r"'plots' .* has 1 of the 3 images"):
        load_dataset(none)


def test_a_class_may_be_called_train(tmp_path):
    assert load_dataset(str(classes(tmp_path, {"bus": 3, "train": 3}))).labels == ("bus", "train")


def test_every_suffix_counts_and_folders_nest(tmp_path):
    for suffix in ("jpg", "JPEG", "PNG", "webp", "bmp", "tif"):
        save(tmp_path / "a" / f"x.{suffix}")
    save(tmp_path / "b" / "deep" / "deeper" / "x.png")
    classes(tmp_path, {"b": 2})
    assert sum(sizes(load_dataset(str(tmp_path)))) == 9


def test_what_is_no_image_is_ignored_and_counted_once(tmp_path, capsys):
    classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / "b" / ".hidden.png").touch()
    (tmp_path / "README.txt").touch()
    save(tmp_path / ".cache" / "x.png")
    assert sum(sizes(load_dataset(str(tmp_path)))) == 6
    assert "hidden 1" in (told := capsys.readouterr().err)
    assert "made by systems 2" in told
    assert ".txt 1" in told
    load_dataset(str(classes(tmp_path / "clean", {"a": 3, "b": 3})))
    assert "Left out" not in capsys.readouterr().err


def test_links_are_followed_and_loops_end(tmp_path):
    classes(tmp_path / "elsewhere", {"b": 3})
    root = classes(tmp_path / "data", {"a": 3})
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "within").mkdir()
    (root / "a" / "within" / "loop").symlink_to(root / "a")
    (root / "a" / "self").symlink_to(root / "a")
    dataset = load_dataset(str(root))
    assert dataset.labels == ("a", "b")
    assert np.bincount(dataset.test.labels).tolist() == [1, 1]


def test_the_split_does_not_depend_on_listing_or_creation_order(tmp_path, monkeypatch):
    one = classes(tmp_path / "one", {"a": 20, "b": 30})
    for path in sorted(one.rglob("*.png"), reverse=True):
        copy = tmp_path / "two" / path.relative_to(one)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    before = load_dataset(str(one))
    real = folder_module.os.listdir
    monkeypatch.setattr(folder_module.os, "listdir", lambda path: sorted(real(path), reverse=True))
    after = load_dataset(str(tmp_path / "two"))
    for split in ("train", "validation", "test"):
        assert getattr(before, split).sha256 == getattr(after, split).sha256
    assert before.preprocess == after.preprocess
    assert load_dataset(str(one), seed=1).test.sha256 != before.test.sha256


def test_a_changed_file_changes_the_hash_of_its_split_only(tmp_path):
    for part in ("train", "val", "test"):
        classes(tmp_path / part, {"a": 2, "b": 2})
    before = load_dataset(str(tmp_path))
    save(tmp_path / "test" / "a" / "000.png", size=(20, 20))
    after = load_dataset(str(tmp_path))
    assert after.test.sha256 != before.test.sha256
    assert after.train.sha256 == before.train.sha256


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "000.png").rename(tmp_path / "a" / "\udcff.png")
    dataset = load_dataset(str(tmp_path))
    assert len(dataset.train.sha256) == 64


def missing(root):
    (root / "flowers").mkdir()
    return root / "flower"


def empty(root):
    return root


def flat(root):
    save(root / "x.png")
    save(root / "y.png")
    return root


def no_images(root):
    (root / "notes.txt").touch()
    return root


def archive(root):
    (root / "x.zip").touch()
    return root / "x.zip"


def one_class(root):
    return classes(root, {"only": 5})


def empty_class(root):
    classes(root, {"a": 3})
    (root / "b").mkdir()
    return root


def small_class(root):
    return classes(root, {"a": 3, "rare": 2})


def small_class_in_train(root):
    classes(root / "test", {"a": 1, "rare": 1})
    classes(root / "train", {"a": 3, "rare": 1})
    return root


def class_missing_in_train(root):
    classes(root / "test", {"a": 1, "b": 1, "c": 1})
    classes(root / "train", {"a": 3, "c": 3})
    return root


def no_test(root):
    classes(root / "train", {"a": 3, "b": 3})
    return root


def no_train(root):
    for part in ("val", "test"):
        classes(root / part, {"a": 3, "b": 3})
    return root


def flat_test(root):
    classes(root / "train", {"a": 3, "b": 3})
    save(root / "test" / "x.png")
    return root


def flat_parts(root):
    save(root / "train" / "x.png")
    save(root / "test" / "x.png")
    return root


def two_validations(root):
    for part in ("train", "val", "valid"):
        classes(root / part, {"a": 3, "b": 3})
    return root


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (missing, UnknownName, ["no folder", "did you mean", "flowers", "one folder of images"]),
        (empty, DataError, ["is empty", "one folder of images for each class"]),
        (flat, DataError, ["2 images lie flat", "one folder for each class"]),
        (no_images, DataError, ["has no class folders"]),
        (archive, DataError, ["is a file", "unpack"]),
        (one_class, DataError, ["only one class, 'only'", "at least two"]),
        (empty_class, DataError, ["class folder", "b' has no images", ".jpeg"]),
        (small_class, DataError, ["'rare'", "has 2 of the 3 images"]),
        (small_class_in_train, DataError, ["'rare'", "has 1 of the 2 images"]),
        (class_missing_in_train, DataError, ["'b' ('b') is in test but not in train"]),
        (no_test, DataError, ["no folder 'test' or 'val'", "train' as the source"]),
        (no_train, DataError, ["no folder 'train' beside 'test' and 'val'"]),
        (flat_test, DataError, ["holds no folders of classes", "data.parts=train:train"]),
        (flat_parts, DataError, ["without class folders in 'test' and 'train'"]),
        (two_validations, DataError, ["several name one part", "val:val,val:valid"]),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(tmp_path, make, error, words):
    source = str(make(tmp_path))
    with pytest.raises(error) as caught:
        load_dataset(source)
    for word in words:
        assert word in str(caught.value)


def test_a_misspelt_digits_is_corrected():
    for source, hint in {"digit": "'digits'", "": "one folder of images"}.items():
        with pytest.raises(UnknownName, match=hint):
            load_dataset(source)


def test_a_missing_parent_folder_is_an_unknown_name(tmp_path):
    with pytest.raises(UnknownName, match="no folder of images"):
        load_dataset(str(tmp_path / "no" / "such"))


def test_broken_files_are_listed(tmp_path):
    classes(tmp_path, {"a": 10, "b": 10})
    for number in range(6):
        (tmp_path / "a" / f"{number:03}.png").write_bytes(b"junk")
    (tmp_path / "b" / "y.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("7 of 21 images")
    assert lines[1:6] == [f"  'a/{n:03}.png': it is no image of a known format" for n in range(5)]
    assert lines[6] == "  and 2 more"
    assert lines[7].startswith("Delete or replace")


def test_what_is_no_regular_file_is_damage_and_keeps_nobody_waiting(tmp_path):
    root = classes(tmp_path / "data", {"a": 3, "b": 3})
    os.mkfifo(root / "a" / "pipe.jpg")
    (root / "a" / "zero.png").symlink_to("/dev/zero")
    (root / "b" / "loop.png").symlink_to("loop.png")
    with pytest.raises(DataError) as caught:
        load_dataset(str(root))
    for words in ("3 of 9", "'a/pipe.jpg': it is a pipe", "'a/zero.png': it is a device", "loop"):
        assert words in str(caught.value)


def test_names_with_control_characters_are_shown_printable(tmp_path):
    root = classes(tmp_path / "data", {"a": 3, "b": 3})
    (root / "a" / "x\x1b[2J\n\udcff.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"'a/x\\x1b\[2J\\n\\udcff\.png': it is no image"):
        load_dataset(str(root))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "\x7f", "a\u2028b", "\udcff"])
def test_a_class_whose_name_breaks_lines_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"the class '.*' of .* has control characters"):
        load_dataset(str(classes(tmp_path / "data", {name: 3, "c": 3})))


def test_folders_that_never_end_are_refused(tmp_path):
    root = classes(tmp_path / "data", {"a": 3, "b": 3})
    deep = root / "a" / "/".join(["x"] * 60)
    deep.mkdir(parents=True)
    with pytest.raises(DataError, match="more than 50 folders deep"):
        load_dataset(str(root))


def test_files_and_folders_that_vanish_are_named(tmp_path, monkeypatch):
    root = classes(tmp_path / "data", {"a": 6, "b": 6})
    dataset = load_dataset(str(root))
    for path in (root / "a").iterdir():
        path.unlink()
    (root / "a").rmdir()
    (root / "a").write_text("a file now")
    with pytest.raises(DataError, match=r"cannot read the image .*a/00\d\.png"):
        [dataset.train.image(i) for i in range(len(dataset.train))]
    with pytest.raises(DataError, match=r"cannot list the folder .*Not a directory"):
        listing_module.listed(root / "a")
    finder = folder_module._Finder(root)
    with pytest.raises(DataError, match=r"cannot list the folder .*No such file"):
        list(finder._images(root / "gone", set()))


def test_what_cannot_be_looked_into_is_passed_over_or_named(tmp_path, monkeypatch):
    root = classes(tmp_path / "data", {"a": 3, "b": 3, "closed": 3})
    listdir = os.listdir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(folder_module.os, "listdir", refuse)
    with pytest.raises(DataError, match=r"cannot list the folder .*closed': Permission denied"):
        load_dataset(str(root))


def test_a_large_folder_is_read_lazily(tmp_path, monkeypatch, capsys):
    classes(tmp_path / "train", {"a": 3, "b": 3})
    classes(tmp_path / "test", {"a": 1, "b": 1})
    (tmp_path / "test" / "a" / "000.png").write_bytes(b"junk")
    with pytest.raises(DataError, match="1 of 8"):
        load_dataset(str(tmp_path))
    monkeypatch.setattr(checked_module, "CHECKED_UP_TO", 7)
    assert "not decoded beforehand" not in capsys.readouterr().err
    test = load_dataset(str(tmp_path)).test
    assert "not decoded beforehand" in capsys.readouterr().err
    test.image(1)
    with pytest.raises(DataError, match=r"000\.png"):
        test.image(0)


def test_a_folder_that_cannot_be_listed(tmp_path):
    with pytest.raises(DataError, match=r"cannot list the folder .*No such file"):
        listing_module.listed(tmp_path / "gone")
