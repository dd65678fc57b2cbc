"""Hugging Face data sets, saved on this machine; the hub itself is never asked."""

import os
import sys
from contextlib import suppress

import numpy as np
import pytest
from made_shards import pixels, png

from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.hub import HubImages
from elastic_nas.errors import ConfigError, DataError, UnknownName


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"hf:cifar10 needs .* pip install 'elastic-nas\[hub\]'"):
        load_dataset("hf:cifar10")


@pytest.fixture
def hub(monkeypatch):
    """The library, told to stay offline."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()
    return datasets


def part(hub, numbers, labels=None, **columns):
    labels = [n % 3 for n in numbers] if labels is None else labels
    cells = {
        "picture": [{"bytes": png(n), "path": None} for n in numbers],
        "kind": labels,
        "note": ["x"] * len(labels),
        **dict.fromkeys(columns, labels),
    }
    kinds = {
        "picture": hub.Image(),
        "kind": hub.ClassLabel(names=["ant", "bee", "cat"]),
        "note": hub.Value("string"),
        **columns,
    }
    return hub.Dataset.from_dict(cells, features=hub.Features(kinds))


def saved(hub, folder, **parts):
    hub.DatasetDict(parts).save_to_disk(str(folder))
    return f"hf:{folder}"


def assert_images(split, numbers):
    assert len(split) == len(numbers)
    for i, n in enumerate(numbers):
        np.testing.assert_array_equal(np.asarray(split.image(i)), pixels(n))
        assert split.labels[i] == n % 3


def test_a_saved_data_set_is_a_data_set(hub, tmp_path):
    source = saved(
        hub,
        tmp_path / "some",
        train=part(hub, range(30)).shuffle(seed=0),
        validation=part(hub, range(30, 36)),
        test=part(hub, range(40, 46)),
    )
    dataset = load_dataset(source)
    assert dataset.name == "some"
    assert dataset.labels == ("ant", "bee", "cat")
    assert dataset.train.labels.dtype == np.int64
    assert dataset.train.shards is None
    assert_images(dataset.validation, range(30, 36))
    assert_images(dataset.test, range(40, 46))
    order = np.random.default_rng(0).permutation(30).tolist()
    assert sorted(dataset.train.labels.tolist()) == [0] * 10 + [1] * 10 + [2] * 10
    first = dataset.train.image(order[0])
    assert any((np.asarray(first) == pixels(n)).all() for n in range(30))
    assert dataset.train.sha256 == load_dataset(source).train.sha256


def test_one_part_alone_is_split(hub, tmp_path):
    part(hub, range(40)).save_to_disk(str(tmp_path / "alone"))
    alone = load_dataset(f"hf:{tmp_path / 'alone'}")
    given = load_dataset(saved(hub, tmp_path / "given", train=part(hub, range(40))))
    for dataset in (alone, given):
        assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [28, 6, 6]
    assert alone.test.sha256 == given.test.sha256


def test_a_part_without_labels_is_left_out(hub, tmp_path, capsys):
    source = saved(
        hub,
        tmp_path / "some",
        train=part(hub, range(30)),
        valid=part(hub, range(30, 36)),
        test=part(hub, range(4), [-1] * 4),
    )
    assert_images(load_dataset(source).test, range(30, 36))
    assert "The part test of hf:" in capsys.readouterr().err


def refused(source, *words, error=DataError):
    with pytest.raises(error) as caught:
        load_dataset(source)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_impossible_columns_are_named(hub, tmp_path):
    two = part(hub, range(9), fine=hub.ClassLabel(names=["a", "b", "c"]))
    refused(saved(hub, tmp_path / "two", train=two), "2 columns of type ClassLabel", "fine", "kind")
    none = part(hub, range(9)).remove_columns("picture")
    refused(saved(hub, tmp_path / "none", train=none), "no columns of type Image", "note (Value)")
    lacking = saved(hub, tmp_path / "lacking", train=part(hub, range(9)), test=none)
    refused(lacking, "test of hf:", "lacks the column 'picture'")


def test_impossible_labels_are_named(hub, tmp_path):
    some = part(hub, range(9), [0, 1, 2, 0, None, 1, 2, 0, 1])
    refused(saved(hub, tmp_path / "some", train=some), "label of row 4", "train of hf:", "is -1")
    all_of_them = part(hub, range(4), [-1] * 4)
    refused(saved(hub, tmp_path / "all", train=all_of_them), "have no labels")
    tested = {"train": part(hub, range(8), [0, 1] * 4), "test": part(hub, range(3))}
    refused(saved(hub, tmp_path / "tested", **tested), "'cat' is in test but not in train", "2")
    refused(saved(hub, tmp_path / "test", test=part(hub, range(9))), "no part 'train'", "test")


def test_damaged_and_missing_images_are_named(hub, tmp_path):
    def damaged(row, index):
        cell = [{"bytes": b"junk", "path": None}, None][index % 2]
        return {**row, "picture": cell if index < 2 else row["picture"]}

    rows = part(hub, range(12)).cast_column("picture", hub.Image(decode=False))
    bad = rows.map(damaged, with_indices=True).cast_column("picture", hub.Image())
    good = part(hub, range(9))
    test = load_dataset(saved(hub, tmp_path / "bad", train=good, test=bad)).test
    with pytest.raises(DataError, match=r"image 'row 0 of test of hf:.*no image of a known"):
        test.image(0)
    with pytest.raises(DataError, match=r"row 1 of test of hf:.*has no image"):
        test.image(1)
    assert test.sha256


def test_rows_that_name_files_are_read_within_bounds(tmp_path):
    """A stranger's saved data set may name any path."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "good.png").write_bytes(png(0))
    (tmp_path / "large.png").write_bytes(png(0) + bytes(300_000_000))
    paths = {
        "/dev/zero": "it is a device",
        str(tmp_path / "pipe.png"): "it is a pipe",
        "/etc/passwd": "no image of a known format",
        str(tmp_path): "it is a folder",
        str(tmp_path / "gone.png"): "No such file",
        "a\0b": "null",
        str(tmp_path / "large.png"): "more than 200,000,000 bytes",
        "": "has no image",
    }
    cells = [{"bytes": None, "path": path} for path in (*paths, str(tmp_path / "good.png"))]
    images = HubImages("some", [{"picture": cell} for cell in cells], "picture")
    for row, (path, reason) in enumerate(paths.items()):
        with pytest.raises(DataError) as caught:
            images.read(row)
        assert reason in str(caught.value), path
        assert isinstance(images.identity(row), bytes)
    np.testing.assert_array_equal(np.asarray(images.read(len(paths))), pixels(0))
    with pytest.raises(DataError, match=r"cannot read row 99 of some: "):
        images.read(99)


def test_the_format_of_a_saved_data_set_changes_nothing(hub, tmp_path):
    plain = saved(hub, tmp_path / "plain", train=part(hub, range(30)))
    formatted = part(hub, range(30)).with_format("numpy")
    other = load_dataset(saved(hub, tmp_path / "numpy", train=formatted))
    assert other.train.sha256 == load_dataset(plain).train.sha256


def test_damaged_saved_data_sets_are_told_in_one_line(hub, tmp_path):
    source = saved(hub, tmp_path / "some", train=part(hub, range(30)))
    for path in sorted((tmp_path / "some").rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        for damaged in (b"", b"junk", content[: len(content) // 2], b"{}", b"[1]", b'{"a": NaN}'):
            path.write_bytes(damaged)
            with suppress(DataError, UnknownName):
                load_dataset(source)
        path.write_bytes(content)
    assert len(load_dataset(source).train) == 18


def test_a_saved_data_set_with_a_pipe_keeps_nobody_waiting(hub, tmp_path):
    source = saved(hub, tmp_path / "some", train=part(hub, range(30)))
    for name in ("dataset_dict.json", "train/state.json", "train/dataset_info.json"):
        path = tmp_path / "some" / name
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        refused(source, name, "is a pipe or a device")
        path.unlink()
        path.symlink_to("/dev/zero")
        refused(source, name, "is a pipe or a device")
        path.unlink()
        path.write_bytes(content)


def test_several_parts_for_one_split_are_named(hub, tmp_path):
    both = {"train": part(hub, range(9)), "val": part(hub, range(9)), "valid": part(hub, range(9))}
    refused(saved(hub, tmp_path / "some", **both), "several parts for one split", "val, valid")


def test_code_that_comes_with_a_data_set_is_never_run(hub, tmp_path, monkeypatch):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    for source in ("hf:evil", "hf:./evil", f"hf:{tmp_path}/evil/evil.py", "hf:evil/evil.py"):
        with pytest.raises((DataError, UnknownName)):
            load_dataset(source)
    assert not (tmp_path / "ran").exists()


def test_unknown_data_sets_are_told_in_one_line(hub, tmp_path):
    refused(f"hf:{tmp_path / 'gone'}", "no data set is called hf:", "hf:/path", error=UnknownName)
    (tmp_path / "empty").mkdir()
    refused(f"hf:{tmp_path / 'empty'}", "no data set is called hf:", error=UnknownName)
    with pytest.raises((DataError, UnknownName), match="hf:nobody/nothing:plain"):
        load_dataset("hf:nobody/nothing:plain")
