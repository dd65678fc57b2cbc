"""What a run keeps of its data: written and read back the same; damage is told, never trusted."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_nas.data.dataset import load_dataset, recorded
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.data.record import LEFT_OUT, SIDES, DataRecord, Head, decoded, read_record
from elastic_nas.data.split import ArrayImages, Part, Source, Split
from elastic_nas.errors import RunFolderError

PLACE = Path("run/images.safetensors")
FACTS = {
    "schema": "elastic-data/1",
    "name": "pets",
    "place": "/data/pets",
    "classes": ["cat", "dog"],
    "given": ["train", "test"],
    "seed": 3,
    "statistics": "data",
    "preprocess": Preprocess((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 0.875).describe(),
    "flip": True,
    "typical_size": 300,
    "left_out": {".gif": 40},
}

IMAGES = ArrayImages(np.zeros((3, 2, 2, 3), np.uint8))
SIDED = list(enumerate(SIDES))


def record(names=("a", "b", "c", "d"), sides=(0, 1, 2, 3), parts=(0, 0, 1, 1), **facts):
    n = len(names)
    return DataRecord(
        Head.model_validate({**FACTS, **facts}),
        np.arange(16 * n, dtype=np.uint8).reshape(n, 16),
        np.arange(n) % 2,
        np.array(sides, dtype=np.uint8),
        np.array(parts, dtype=np.uint8),
        list(names),
    )


def same(one: DataRecord, other: DataRecord) -> bool:
    arrays = ("identities", "labels_N", "sides_N", "parts_N")
    equal = all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays)
    return equal and one.head == other.head and list(one.names) == list(other.names)


def test_it_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "images.safetensors"
    path.write_bytes(record().encoded())
    found = read_record(path)
    assert same(found, record())
    assert found.fingerprints == record().fingerprints
    assert found.counts == {"train": 1, "search-validation": 1, "test": 1}


NAMES = st.text(st.characters(exclude_characters="\0"), max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=4, max_size=4))
def test_any_names_survive(names):
    """Those of files that are no text, too: their bytes come as halves of characters."""
    assert list(decoded(record(names).encoded(), PLACE).names) == names


def test_names_with_nul_stay_apart():
    assert decoded(record(["a\0b", "", "c", "d"]).encoded(), PLACE).names[0] == "a\ufffdb"


def test_odd_classes_survive():
    found = decoded(record(classes=["a\nb", "\u2028 é"]).encoded(), PLACE)
    assert found.classes == ("a\nb", "\u2028 é")


def test_places_that_are_no_text_are_told_with_question_marks():
    splits = [Split(side, np.zeros(1, np.int64), IMAGES, np.array([n])) for n, side in SIDED]
    source = Source("d\udcff", "/d\udcff", ("a",), {"all": Part("abc", np.zeros(3), IMAGES)})
    facts = {
        key: FACTS[key] for key in ("seed", "statistics", "preprocess", "flip", "typical_size")
    }
    found = recorded(
        replace(source, left_out={".\udcff": 2}), dict(zip(SIDES, splits, strict=True)), facts
    )
    assert (found.head.name, found.head.place, found.head.left_out) == ("d?", "/d?", {".?": 2})


def test_fingerprints_tell_images_labels_order_and_sides():
    sides = (0, 0, 1, 2)
    before = record(sides=sides, parts=(0, 0, 0, 1))
    swapped = before.identities[[1, 0, 2, 3]]
    others = [
        DataRecord(before.head, swapped, before.labels_N, before.sides_N, before.parts_N, "abcd"),
        record(sides=(0, 3, 1, 2), parts=(0, 0, 0, 1)),
    ]
    for other in others:
        assert other.fingerprints["train"] != before.fingerprints["train"]
        assert other.fingerprints["test"] == before.fingerprints["test"]


def damaged(content: bytes) -> str:
    with pytest.raises(RunFolderError) as caught:
        decoded(content, PLACE)
    text = str(caught.value)
    assert f"{PLACE} is damaged" in text
    assert "Restore it from a copy" in text
    return text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sides": (0, 1, 2, 9)}, "on no side"),
        ({"sides": (0, 0, 2, 3)}, "search-validation images are none"),
        ({"sides": (0, 1, 2, 0)}, "train images are none, or of several parts"),
        ({"parts": (0, 0, 1, 2)}, "on no side"),
        ({"names": ("a", "b\0c", "d", "e"), "sides": (0, 1, 2)}, "unequal lengths"),
    ],
)
def test_what_cannot_be_is_refused(change, said):
    assert said in damaged(record(**change).encoded())


def test_labels_beyond_the_classes_are_refused():
    wrong = record()
    wrong.labels_N[0] = 2
    assert "of no class" in damaged(wrong.encoded())
    left_out = record()
    left_out.labels_N[3] = 7  # of an image on no side nothing is asked
    assert decoded(left_out.encoded(), PLACE).sides_N[3] == LEFT_OUT


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "elastic-data/9"), ("classes", ["cat", "cat"]), ("given", []),
        ("given", ["all", "all"]), ("preprocess", {"mean": 1}), ("statistics", "mine"),
        ("typical_size", 0), ("more", 1),
    ],
)  # fmt: skip
def test_a_wrong_head_is_refused(key, value):
    content = record().encoded()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    head = json.loads(header["__metadata__"]["elastic_nas"])
    header["__metadata__"]["elastic_nas"] = json.dumps({**head, key: value})
    changed = json.dumps(header).encode()
    damaged(len(changed).to_bytes(8, "little") + changed + content[8 + length :])


CONTENT = record().encoded()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255), st.booleans())
def test_damage_is_told_or_harmless(at, bits, cut):
    """No flipped bit and no cut gives anything but a record or the one error."""
    changed = bytearray(CONTENT)
    changed[at] ^= bits
    with suppress(RunFolderError):
        assert decoded(bytes(changed[:at] if cut else changed), PLACE).sides_N.max() <= LEFT_OUT


def test_it_holds_what_a_data_set_is():
    digits = load_dataset("digits")
    found = decoded(digits.record.encoded(), PLACE)
    assert found.classes == digits.labels
    assert found.preprocess == digits.preprocess
    splits = dict(zip(SIDES, (digits.train, digits.validation, digits.test), strict=True))
    assert found.fingerprints == {side: split.sha256 for side, split in splits.items()}
    assert found.counts == {side: len(split) for side, split in splits.items()}
