"""Today's images on the sides that a record has them on, whatever was done to them since."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.first_version import as_then
from elastic_nas.data.identity import identity_of, stacked
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.record import LEFT_OUT, SIDES, DataRecord, Head
from elastic_nas.data.sides import kept_on_sides, sides_of
from elastic_nas.data.split import FileImages, Part, Source, Split
from elastic_nas.data.tied import check_lost, check_same_classes, tie
from elastic_nas.errors import ConfigError

CLASSES = ("cat", "dog")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images that are only known."""

    contents: tuple[str, ...]

    @property
    def identities(self):
        return stacked(identity_of(content.encode()) for content in self.contents)

    def read(self, index):
        raise AssertionError("nothing reads pixels here")


def part(*images: tuple[str, int, str], pixels=None) -> Part:
    """Of (name, class, content) each."""
    names, labels, contents = zip(*images, strict=True)
    pixels_NB = None if pixels is None else stacked(identity_of(p.encode()) for p in pixels)
    return Part(list(names), np.array(labels), Pictures(contents), pixels_NB)


def source(**parts: Part) -> Source:
    return Source("pets", "/pets", CLASSES, parts)


def recorded(sides: str, *images: tuple[str, int, str], parts: str = "", given=("all",)):
    """A record of (name, class, content), with a letter of ``tvxo`` for each one's side."""
    head = Head.model_validate(
        {
            "schema": "elastic-data/1", "name": "pets", "place": "/pets", "classes": list(CLASSES),
            "given": list(given), "seed": 0, "statistics": "data", "flip": True,
            "preprocess": Preprocess((0.5,) * 3, (0.2,) * 3, 1.0).describe(), "typical_size": 9,
        }
    )  # fmt: skip
    of = part(*images)
    return DataRecord(
        head,
        of.images.identities,
        of.labels,
        np.array(["tvxo".index(side) for side in sides], dtype=np.uint8),
        np.array([int(p) for p in parts or "0" * len(images)], dtype=np.uint8),
        list(of.names),
    )


SIX = (
    ("cat/1", 0, "A"), ("cat/2", 0, "B"), ("cat/3", 0, "C"),
    ("dog/1", 1, "D"), ("dog/2", 1, "E"), ("dog/3", 1, "F"),
)  # fmt: skip
RECORD = recorded("tvxtvx", *SIX)


def contents(splits: dict[str, Split]) -> list[list[str]]:
    return [[s.images.contents[row] for row in s.rows] for s in splits.values()]


def test_unchanged_images_are_split_as_they_were():
    tied = tie(RECORD, source(all=part(*SIX)), "run")
    assert (tied.lost, tied.new) == ((), ())
    assert contents(tied.splits) == [["A", "D"], ["B", "E"], ["C", "F"]]
    assert {s: split.sha256 for s, split in tied.splits.items()} == RECORD.fingerprints


def test_renamed_and_reordered_images_keep_sides_and_order():
    renamed = [(f"{name}x", label, content) for name, label, content in reversed(SIX)]
    tied = tie(RECORD, source(all=part(*renamed)), "run")
    assert (tied.lost, tied.new) == ((), ())
    assert {s: split.sha256 for s, split in tied.splits.items()} == RECORD.fingerprints


def test_what_is_gone_changed_relabelled_and_new_is_told_apart():
    today = (
        ("cat/1", 0, "other"), ("cat/3", 0, "C"),  # cat/1 is another picture, cat/2 is gone
        ("dog/1", 1, "D"), ("cat/moved", 0, "E"), ("dog/3", 1, "F"), ("dog/9", 1, "new"),
    )  # fmt: skip
    tied = tie(RECORD, source(all=part(*today)), "run")
    assert tied.new == ("dog/9",)
    train, validation = tied.lost
    assert (train.vanished, train.changed, train.relabelled) == ((), ("cat/1",), ())
    assert (validation.vanished, validation.relabelled) == (("cat/2",), ("dog/2",))
    assert contents(tied.splits) == [["D"], [], ["C", "F"]]
    assert "1 vanished ('cat/2') and 1 moved to another class ('dog/2')" in validation.told()


def test_a_name_that_another_known_image_took_is_not_a_changed_one():
    today = [("cat/1", 0, "B"), *SIX[2:]]
    (lost,) = tie(RECORD, source(all=part(*today)), "run").lost
    assert (lost.side, lost.vanished, lost.changed) == ("train", ("cat/1",), ())


def test_copies_are_told_apart_by_class_and_name_then_taken_in_order():
    images = (("a", 0, "S"), ("b", 0, "S"), ("c", 1, "S"), ("d", 1, "T"), ("e", 0, "U"))
    record = recorded("xtvtt", *images)
    tied = tie(record, source(all=part(*images[::-1])), "run")
    found = {side: list(split.rows) for side, split in tied.splits.items()}
    assert found == {"train": [3, 1, 0], "search-validation": [2], "test": [4]}
    renamed = part(("q", 1, "S"), ("p", 0, "S"), ("o", 0, "S"), ("d", 1, "T"), ("e", 0, "U"))
    tied = tie(record, source(all=renamed), "run")
    assert not tied.lost
    assert tied.splits["search-validation"].rows.tolist() == [0]


def test_one_copy_fewer_is_one_lost_and_one_more_is_new():
    images = (("a", 0, "S"), ("b", 0, "S"), ("c", 1, "V"), ("d", 1, "X"))
    record = recorded("ttvx", *images)
    (lost,) = tie(record, source(all=part(*images[1:])), "run").lost
    assert lost.vanished == ("a",)
    more = tie(record, source(all=part(*images, ("z", 0, "S"))), "run")
    assert (more.lost, more.new) == ((), ("z",))


def test_images_on_no_side_are_neither_new_nor_lost():
    images = (("a", 0, "S"), ("b", 1, "S"), ("c", 0, "T"), ("d", 0, "V"), ("e", 1, "X"))
    record = recorded("ootvx", *images)
    assert tie(record, source(all=part(*images)), "run").new == ()
    assert tie(record, source(all=part(*images[1:])), "run").lost == ()


def test_a_copy_that_was_left_out_stands_in_for_the_one_that_was_not():
    images = (("a", 0, "S"), ("b", 0, "S"), ("d", 0, "V"), ("e", 1, "X"))
    tied = tie(recorded("otvx", *images), source(all=part(*images[:1], *images[2:])), "run")
    assert (tied.lost, contents(tied.splits)[0]) == ((), ["S"])


GIVEN = (("cat/1", 0, "A"), ("dog/1", 1, "B"), ("cat/2", 0, "C"), ("dog/2", 1, "D"))
TWO = recorded("tvxx", *GIVEN, parts="0011", given=("train", "test"))


def test_images_that_moved_to_another_part_are_refused():
    swapped = source(train=part(GIVEN[0], GIVEN[2]), test=part(GIVEN[1], GIVEN[3]))
    with pytest.raises(ConfigError, match="1 that were in train lie in test now") as caught:
        tie(TWO, swapped, "run")
    assert "1 that were in test lie in train now ('cat/2')" in str(caught.value)


def test_a_copy_of_a_test_image_in_train_is_left_out():
    tied = tie(TWO, source(train=part(*GIVEN[:2], ("cat/9", 0, "C")), test=part(*GIVEN[2:])), "run")
    assert (tied.lost, tied.new) == ((), ("cat/9",))
    assert contents(tied.splits) == [["A"], ["B"], ["C", "D"]]


def test_other_parts_are_refused_with_both_named():
    with pytest.raises(ConfigError, match=r"came as train and test; '/pets' has one part that is"):
        tie(TWO, source(all=part(*GIVEN)), "run")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (("aqua", "cat", "dog"), "new: 'aqua'"),
        (("cat",), "gone: 'dog'"),
        (("cat", "hound"), "gone: 'dog'; new: 'hound'"),
        (("dog", "cat"), "another order: number 0 was 'cat' and is 'dog' now"),
    ],
)
def test_other_classes_are_refused_with_both_lists(now, said):
    with pytest.raises(ConfigError) as caught:
        check_same_classes(CLASSES, now, "run", "/pets")
    text = str(caught.value)
    assert said in text
    assert "2 classes ('cat', 'dog')" in text
    assert f"{len(now)} now ({', '.join(map(repr, now))})" in text


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_image_ever_changes_sides(data):
    """Whatever is deleted, copied, renamed or added, each side holds only what it held."""
    n = data.draw(st.integers(3, 12))
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    images = [(f"i{i}", kind % 2, f"c{kind}") for i, kind in enumerate(kinds)]
    rest = data.draw(st.text("tvxo", min_size=n - 3, max_size=n - 3))
    record = recorded("tvx" + rest, *images)
    some = data.draw(st.lists(st.sampled_from(images), min_size=1, max_size=15))
    today = [(f"{name}-{i}" * (i % 2) or name, k, c) for i, (name, k, c) in enumerate(some)]
    tied = tie(record, source(all=part(*today)), "run")
    for number, (side, split) in enumerate(tied.splits.items()):
        assert len(set(split.rows.tolist())) == len(split)
        had = [images[row][1:] for row in np.flatnonzero(record.sides_N == number)]
        left = [(today[row][1], today[row][2]) for row in split.rows]
        assert all(left.count(image) <= had.count(image) for image in left)
        gone = sum(len(lost) for lost in tied.lost if lost.side == side)
        assert len(left) + gone == len(had)
    rows = np.concatenate([split.rows for split in tied.splits.values()])
    assert len(set(rows.tolist())) == len(rows)


def test_of_a_run_of_the_first_version_files_that_it_did_not_read_are_left_out():
    files = ("cat/a.JPG", "cat/b.gif", "dog/c.png", "dog/d.avif")
    images = FileImages(Path("/pets"), files, stacked(identity_of(f.encode()) for f in files))
    found = as_then(source(all=Part(list(files), np.array([0, 0, 1, 1]), images))).parts["all"]
    assert list(found.names) == list(found.images.names) == ["cat/a.JPG", "dog/c.png"]
    assert found.labels.tolist() == [0, 1]
    assert found.images.identities.tolist() == images.identities[[0, 2]].tolist()
    digits = load_dataset("digits")
    assert load_dataset("digits", first=digits.labels).train.sha256 == digits.train.sha256


# --- what is too much -----------------------------------------------------------------------------


def thousand(missing: int) -> tuple[DataRecord, Source]:
    images = [(f"{i}", i % 2, f"c{i}") for i in range(1002)]
    return recorded("t" * 1000 + "vx", *images), source(all=part(*images[missing:]))


def checked(missing: int, **wanted: bool) -> list[str]:
    record, today = thousand(missing)
    said: list[str] = []
    check_lost(tie(record, today, "run"), "run", **{"accept": False, **wanted}, say=said.append)
    return said


def test_one_percent_may_be_missing_and_is_counted():
    assert checked(0, strictly=True) == []
    (said,) = checked(10, strictly=False)
    assert "of 1,000 train images 10 vanished ('0', '1', '2', and 7 more)" in said
    assert "going on with 990 train, 1 search-validation, 1 test images" in said


@pytest.mark.parametrize(("missing", "strictly"), [(11, False), (1, True)])
def test_more_is_refused_unless_accepted(missing, strictly):
    with pytest.raises(ConfigError, match=r"data\.missing=accept"):
        checked(missing, strictly=strictly)
    assert checked(missing, strictly=strictly, accept=True)


def test_a_side_without_any_image_is_refused_whatever_is_accepted():
    with pytest.raises(ConfigError, match="none of the train images of run are there"):
        checked(1000, strictly=False, accept=True)


# --- a training that begins with a run ------------------------------------------------------------


def drawn(of: Source, sides: str) -> dict[str, Split]:
    """Splits of one part by a letter of ``tvxo`` an image."""
    whole = of.parts["all"]
    rows = [np.flatnonzero([s == letter for s in sides]) for letter in "tvx"]
    pairs = zip(SIDES, rows, strict=True)
    return {side: Split(side, whole.labels[at], whole.images, at) for side, at in pairs}


def kept(today: Source, sides: str, record=RECORD, accept=False) -> str:
    splits = kept_on_sides(record, today, drawn(today, sides), "run", accept=accept)
    return "".join("tvxo"[side] for side in sides_of(today, splits)["all"])


def test_known_images_keep_their_sides_and_new_ones_are_split_as_usual(capsys):
    more = [*reversed(SIX), ("cat/7", 0, "G"), ("cat/8", 0, "H")]
    assert kept(source(all=part(*more)), "ttxxvvxt") == "xvtxvtxt"
    assert "2 others are new here" in capsys.readouterr().err


def test_images_of_another_data_set_are_split_as_usual(capsys):
    other = source(all=part(*((n, k, c + "!") for n, k, c in SIX)))
    assert kept(other, "xvtxvt") == "xvtxvt"
    assert "this is another data set" in capsys.readouterr().err


def test_missing_images_of_the_run_are_refused_unless_accepted(capsys):
    fewer = source(all=part(*SIX[1:], ("n", 0, "N")))
    with pytest.raises(ConfigError, match=r"of 2 train images 1 \('cat/1'\).*missing=accept"):
        kept(fewer, "tttvxt")
    assert kept(fewer, "tttvxt", accept=True) == "vxtvxt"
    assert "missing here" in capsys.readouterr().err


def test_a_new_copy_of_a_known_picture_stays_on_no_other_side():
    """Other bytes that show the test image 'C'."""
    today = source(all=part(*SIX, ("copy", 0, "c"), pixels="ABCDEFC"))
    assert kept(today, "tvxtvxt") == "tvxtvxo"
    assert kept(today, "tvxtvxx") == "tvxtvxx"


def test_a_part_that_contradicts_is_refused_with_names():
    images = [*SIX, ("n/1", 0, "N"), ("n/2", 1, "M")]
    today = source(train=part(*images[:3], images[6]), test=part(*images[3:6], images[7]))
    train, test = today.parts["train"], today.parts["test"]
    splits = {
        "train": Split("train", train.labels[:3], train.images, np.arange(3)),
        "search-validation": Split("v", train.labels[3:], train.images, np.array([3])),
        "test": test.whole("test"),
    }
    with pytest.raises(ConfigError) as caught:
        kept_on_sides(RECORD, today, splits, "run", accept=False)
    assert "3 images that run was trained" in str(caught.value)
    assert "('cat/3', 'dog/1', 'dog/2')" in str(caught.value)


def test_what_was_left_out_then_is_free_now():
    record = recorded("tvxtvo", *SIX)
    assert kept(source(all=part(*SIX)), "ttxtvt", record) == "tvxtvt"
    assert record.sides_N[5] == LEFT_OUT
