"""Hugging Face data sets, saved on this machine; the hub itself is never asked."""

import os
import sys
from contextlib import suppress

import numpy as np
import pytest
from made_shards import pixels, png

from elastic_nas.config import DataConfig
from elastic_nas.data import hub_images
from elastic_nas.data.dataset import find_source, load_dataset
from elastic_nas.data.hub_images import HubImages, known_by
from elastic_nas.data.identity import identity_of, split_up
from elastic_nas.data.record import SIDES
from elastic_nas.data.tied import tie
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


NAMES = ("ant", "bee", "cat")


def part(hub, numbers, labels=None, names=NAMES, **columns):
    """Pictures of these numbers; the class of each is its number by 3, in any order of names."""
    labels = [names.index(NAMES[n % 3]) for n in numbers] if labels is None else labels
    cells = {
        "picture": [{"bytes": png(n), "path": None} for n in numbers],
        "kind": labels,
        "note": ["x"] * len(labels),
        **dict.fromkeys(columns, labels),
    }
    kinds = {
        "picture": hub.Image(),
        "kind": hub.ClassLabel(names=list(names)),
        "note": hub.Value("string"),
        **columns,
    }
    return hub.Dataset.from_dict(cells, features=hub.Features(kinds))


def saved(hub, folder, **parts):
    hub.DatasetDict(parts).save_to_disk(str(folder))
    return f"hf:{folder}"


def of(source, parts="auto", **options):
    return DataConfig(source=source, parts=parts, **options)


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
    assert "without labels are left out: test (4 rows)" in capsys.readouterr().err
    assert find_source(of(source)).left_out == {"rows of parts without labels: test": 4}
    refused(of(source, "train:train,test:test"), "'test'", "has no labels", "data.parts")


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
    refused(saved(hub, tmp_path / "test", test=part(hub, range(9))), "called 'train'; it has test")


def spoilt(hub, rows, cells):
    """The same rows with other cells in some."""
    plain = rows.cast_column("picture", hub.Image(decode=False))
    bad = plain.map(
        lambda row, index: {**row, "picture": cells.get(index, row["picture"])}, with_indices=True
    )
    return bad.cast_column("picture", hub.Image())


def test_damaged_images_are_named(hub, tmp_path):
    bad = spoilt(hub, part(hub, range(50, 62)), {0: {"bytes": b"junk", "path": None}})
    test = load_dataset(saved(hub, tmp_path / "bad", train=part(hub, range(9)), test=bad)).test
    with pytest.raises(DataError, match=r"image 'row 0 of test of hf:.*no image of a known"):
        test.image(0)


def test_rows_without_an_image_are_named_and_few_are_left_out(hub, tmp_path, capsys):
    bad = spoilt(hub, part(hub, range(100)), {1: None, 40: None})
    refused(
        saved(hub, tmp_path / "two", train=bad), "2 of 100 rows", "row 1: it has no image", "1 %"
    )
    bad = spoilt(hub, part(hub, range(100)), {40: None})
    source = saved(hub, tmp_path / "one", train=bad, test=part(hub, range(200, 209)))
    refused(of(source, damaged="stop"), "row 40", "data.damaged=stop")
    found = find_source(of(source))
    assert found.left_out == {"unreadable": 1}
    assert len(found.parts["train"].labels) == 99
    for row in (39, 40, 98):  # the images keep their rows, names and labels
        n = row + (row >= 40)
        np.testing.assert_array_equal(np.asarray(found.parts["train"].images.read(row)), pixels(n))
        assert found.parts["train"].labels[row] == n % 3
        assert list(found.parts["train"].names)[row] == str(n)
    assert "row 40: it has no image" in capsys.readouterr().err


def test_rows_that_name_files_are_read_within_bounds(hub, tmp_path):
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
    kind = hub.Features({"picture": hub.Image(decode=False)})
    rows = hub.Dataset.from_dict({"picture": cells}, features=kind)
    known = known_by(rows, rows, "picture", "")
    images = HubImages("some", rows, "picture", np.arange(len(cells)), known.identities)
    readable = ("/etc/passwd", str(tmp_path / "large.png"))
    for row, (path, reason) in enumerate(paths.items()):
        with pytest.raises(DataError) as caught:
            images.read(row)
        assert reason in str(caught.value), path
        assert (row in known.reasons) == (path not in readable)
        assert path in readable or reason in known.reasons[row]
    np.testing.assert_array_equal(np.asarray(images.read(len(paths))), pixels(0))
    assert known.identities[-1].tobytes() == identity_of(png(0))
    rows = HubImages("some", [], "picture", np.array([99]), known.identities)
    with pytest.raises(DataError, match=r"cannot read row 99 of some: "):
        rows.read(0)


def with_files(hub, folder, numbers):
    """A data set of rows that name files, as the library makes of a folder."""
    folder.mkdir(exist_ok=True)
    for n in numbers:
        (folder / f"{n}.png").write_bytes(png(n))
    cells = {
        "picture": [{"bytes": None, "path": str(folder / f"{n}.png")} for n in numbers],
        "kind": [n % 3 for n in numbers],
    }
    kinds = {"picture": hub.Image(decode=False), "kind": hub.ClassLabel(names=list(NAMES))}
    rows = hub.Dataset.from_dict(cells, features=hub.Features(kinds))
    rows.map(lambda row: row, cache_file_name=str(folder / "rows.arrow"))
    return hub.Dataset.from_file(str(folder / "rows.arrow"))


def test_images_are_known_by_their_content_wherever_they_lie(hub, tmp_path):
    embedded = load_dataset(saved(hub, tmp_path / "some", train=part(hub, range(30)))).train
    rows = with_files(hub, tmp_path / "files", range(30))
    known = known_by(rows, rows, "picture", "")
    assert split_up(known.identities) == split_up(embedded.images.identities)
    assert split_up(known.identities) == [identity_of(png(n)) for n in range(30)]


def test_identities_are_computed_once(hub, tmp_path, monkeypatch):
    source = saved(hub, tmp_path / "some", train=part(hub, range(30)))
    rows = with_files(hub, tmp_path / "files", range(30))
    first = load_dataset(source).train.sha256
    monkeypatch.setattr(hub_images, "AT_REST_NS", 0)
    known_by(rows, rows, "picture", "")
    hashed = []
    monkeypatch.setattr(hub_images, "identity_of", lambda c: hashed.append(1) or identity_of(c))
    assert load_dataset(source).train.sha256 == first
    assert hashed == []
    (tmp_path / "files" / "4.png").write_bytes(png(77))
    (tmp_path / "files" / "5.png").unlink()
    known = known_by(rows, rows, "picture", "")
    assert len(hashed) == 1
    assert known.identities[4].tobytes() == identity_of(png(77))
    assert list(known.reasons) == [5]


def test_kept_identities_of_other_images_are_not_taken(hub, tmp_path):
    """A fingerprint tells how a part was made, not of what; a file may be damaged."""
    source = saved(hub, tmp_path / "some", train=part(hub, range(30)))
    first = load_dataset(source).train.sha256
    (kept,) = hub_images.user_folder().glob("identities/*.hub")
    right = kept.read_bytes()
    for content in (b"", b"junk", right[:-1], right[:50] + b"?" + right[51:]):
        kept.write_bytes(content)
        assert load_dataset(source).train.sha256 == first
        assert kept.read_bytes() == right
    (state,) = (tmp_path / "some").glob("train/state.json")
    before = state.read_text()
    saved(hub, tmp_path / "some", train=part(hub, range(100, 130)))
    state.write_text(before)  # with the old fingerprint
    assert load_dataset(source).train.sha256 != first


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


def test_labels_of_parts_are_matched_by_name(hub, tmp_path, capsys):
    turned = ("cat", "ant", "bee")
    source = saved(
        hub,
        tmp_path / "some",
        train=part(hub, range(30)),
        validation=part(hub, range(30, 36), names=("bee", "ant", "cat")),
        test=part(hub, range(40, 46), names=turned),
    )
    dataset = load_dataset(source)
    assert dataset.labels == NAMES
    assert_images(dataset.validation, range(30, 36))
    assert_images(dataset.test, range(40, 46))
    assert f"test of {source} lists its classes in another order" in capsys.readouterr().err
    joined = find_source(of(source, "none"))
    assert joined.parts["all"].labels.tolist() == [n % 3 for n in (*range(36), *range(40, 46))]


def test_a_class_that_a_part_does_not_know_is_refused(hub, tmp_path):
    train, short = part(hub, range(30)), part(hub, [42, 43, 45, 46], names=("bee", "ant"))
    words = (
        "do not have the same classes",
        "'cat' of train",
        "test (2): 'bee', 'ant'",
        "train (3)",
    )
    source = saved(hub, tmp_path / "short", train=train, test=short)
    refused(source, *words, "align_labels_with_mapping", "data.parts")
    refused(of(source, "none"), *words)
    assert load_dataset(of(source, "train:train")).labels == NAMES  # what the message offers
    more = part(hub, range(40, 46), [3] * 6, names=(*NAMES, "dog"))
    refused(saved(hub, tmp_path / "more", train=train, test=more), "'dog' of test", "train (3)")


def test_a_class_without_any_row_is_left_out_and_told(hub, tmp_path, capsys):
    """Such as of a data set that was filtered."""
    test = part(hub, range(40, 46), names=("asp", *NAMES))
    train = part(hub, range(30), names=(*NAMES, "dog"))
    source = saved(hub, tmp_path / "some", train=train, test=test)
    dataset = load_dataset(source)
    assert dataset.labels == NAMES
    assert_images(dataset.test, range(40, 46))
    assert "2 of its classes, which are left out: 'asp', 'dog'" in capsys.readouterr().err


def test_names_that_differ_by_little_are_refused(hub, tmp_path):
    """By case, or by how an accent is stored."""
    for one, other in (("cat", "Cat"), ("caf\u00e9", "cafe\u0301")):
        train = part(hub, range(30), [n % 3 for n in range(30)], names=("ant", "bee", one))
        test = part(hub, range(9), [n % 3 for n in range(9)], names=("ant", "bee", other))
        source = saved(hub, tmp_path / ascii(other), train=train, test=test)
        refused(source, ascii(one), ascii(other), "differ only by")


def test_two_readings_end_with_the_options(hub, tmp_path):
    source = saved(
        hub,
        tmp_path / "some",
        train=part(hub, range(30)),
        validation=part(hub, range(30, 36)),
        valid=part(hub, range(36, 42)),
        test=part(hub, range(42, 48)),
    )
    one = "train:train,val:validation,test:test"
    both = "train:train,val:validation,val:valid,test:test"
    refused(source, "several parts for val: validation, valid", f"data.parts={one}", both)
    assert_images(load_dataset(of(source, one)).validation, range(30, 36))
    assert_images(load_dataset(of(source, both)).validation, range(30, 42))
    assert list(find_source(of(source, both)).parts["val"].names)[5:7] == [
        "validation/5",
        "valid/0",
    ]


def test_all_parts_may_be_joined_and_split_anew(hub, tmp_path):
    source = saved(hub, tmp_path / "some", a=part(hub, range(30)), b=part(hub, range(30, 40)))
    refused(source, "'train'; it has a, b", "data.parts=train:a", "data.parts=none")
    dataset = load_dataset(of(source, "none"))
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split) for split in splits] == [28, 6, 6]
    every = {key for split in splits for key in split_up(split.images.identities[split.rows])}
    assert every == {identity_of(png(n)) for n in range(40)}


def test_parts_that_are_not_used_are_counted(hub, tmp_path, capsys):
    source = saved(
        hub,
        tmp_path / "some",
        train=part(hub, range(30)),
        test=part(hub, range(30, 36)),
        extra=part(hub, range(40, 50)),
        unsupervised=part(hub, range(5), [-1] * 5),
    )
    found = find_source(of(source))
    assert {name: len(of.labels) for name, of in found.parts.items()} == {"train": 30, "test": 6}
    assert found.left_out == {"rows of parts not used: extra, unsupervised": 15}
    assert "extra (10 rows), unsupervised (5 rows)" in capsys.readouterr().err
    more = find_source(of(source, "train:train,train:extra,test:test"))
    assert len(more.parts["train"].labels) == 40
    joined = find_source(of(source, "none"))
    assert joined.left_out == {"rows of parts without labels: unsupervised": 5}
    assert len(joined.parts["all"].labels) == 46


def test_parts_that_there_are_not_are_named(hub, tmp_path):
    source = saved(hub, tmp_path / "some", train=part(hub, range(30)), test=part(hub, range(9)))
    refused(of(source, "train:Train"), "'Train'", "it has train, test", error=ConfigError)
    refused(of(source, "train:train,test:train"), "'train' twice", error=ConfigError)
    refused(of(source, "test:test"), "nothing to train with", error=ConfigError)
    part(hub, range(40)).save_to_disk(str(tmp_path / "alone"))
    refused(of(f"hf:{tmp_path / 'alone'}", "train:train"), "it has all", error=ConfigError)


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


def test_a_run_knows_its_rows_in_another_order_at_another_place(hub, tmp_path):
    record = load_dataset(saved(hub, tmp_path / "some", train=part(hub, range(40)))).record
    mixed = [*range(100, 103), *reversed(range(40))]
    other = saved(hub, tmp_path / "other", train=part(hub, mixed))
    tied = tie(record, find_source(of(other)), "the run")
    assert not tied.lost
    assert tied.new == ("0", "1", "2")
    for number, side in enumerate(SIDES):
        split = tied.splits[side]
        there = [key.tobytes() for key in record.identities[record.sides_N == number]]
        assert split_up(split.images.identities[split.rows]) == there
        assert there[0] == identity_of(png(mixed[split.rows[0]]))


def test_a_saved_data_set_of_several_files_is_read_in_order(hub, tmp_path):
    hub.DatasetDict(train=part(hub, range(30))).save_to_disk(
        str(tmp_path / "some"), num_shards={"train": 4}
    )
    found = find_source(of(f"hf:{tmp_path / 'some'}")).parts["train"]
    assert split_up(found.images.identities) == [identity_of(png(n)) for n in range(30)]
