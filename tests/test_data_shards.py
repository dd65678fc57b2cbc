"""Tar shards: what is read from them, and what is wrong with some."""

import io
import json
import os
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_shards import pixels, png, samples, write_shards, write_tar
from PIL import Image

from elastic_nas.config import DataConfig
from elastic_nas.data import index as index_module
from elastic_nas.data import kept as kept_module
from elastic_nas.data.data_file import expanded, list_shards
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.identity import identity_of
from elastic_nas.data.images import read_image
from elastic_nas.data.index import Index, read_index
from elastic_nas.data.preprocess import Preprocess
from elastic_nas.errors import ConfigError, DataError, UnknownName
from elastic_nas.files import user_folder


def index(path):
    with path.open("rb") as file:
        return read_index(file, path.name)


def assert_images(split, numbers):
    """The images that `pixels` makes of these numbers, in any order, with their labels."""
    found = {split.image(i).tobytes(): int(split.labels[i]) for i in range(len(split))}
    assert found == {pixels(n).tobytes(): n % 3 for n in numbers}


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "set"
    write_shards(folder, "train", [20, 15, 25])
    write_shards(folder, "val", [6, 3], first=100)
    write_shards(folder, "test", [9], first=200)
    return folder


def test_a_folder_of_shards_is_a_data_set(shards):
    dataset = load_dataset(str(shards))
    assert dataset.name == "set"
    assert dataset.labels == ("0", "1", "2")
    assert dataset.flip
    assert dataset.typical_size == 12
    assert_images(dataset.train, range(60))
    assert_images(dataset.validation, range(100, 109))
    assert_images(dataset.test, range(200, 209))
    assert dataset.train.shards.tolist() == [0] * 20 + [1] * 15 + [2] * 25


def test_missing_parts_are_split_off_as_those_of_folders(shards):
    for path in shards.glob("test-*"):
        path.unlink()
    dataset = load_dataset(str(shards))
    assert_images(dataset.test, range(100, 109))
    assert (len(dataset.train), len(dataset.validation)) == (54, 6)
    numbers = set(range(60)) - set(shown(dataset.train))
    assert_images(dataset.validation, numbers)
    for path in shards.glob("val-*"):
        path.unlink()
    alone = load_dataset(str(shards))
    assert [len(s) for s in (alone.train, alone.validation, alone.test)] == [42, 9, 9]
    numbers = sorted([*shown(alone.train), *shown(alone.validation), *shown(alone.test)])
    assert numbers == list(range(60))


def shown(split):
    number = {pixels(n).tobytes(): n for n in range(60)}
    return [number[split.image(i).tobytes()] for i in range(len(split))]


def test_a_split_of_shards_does_all_that_one_of_a_folder_does(shards):
    train = load_dataset(str(shards)).train
    subset = train.subset([59, 3])
    images = subset.deployed(Preprocess((0.5,) * 3, (0.2,) * 3), 12)
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), pixels(59))
    assert subset.shards.tolist() == [2, 0]
    assert subset.sha256 == load_dataset(str(shards)).train.subset([59, 3]).sha256
    assert subset.sha256 != train.subset([58, 3]).sha256


def test_the_index_says_where_the_images_lie(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(range(5)))
    found = index(path)
    content = path.read_bytes()
    assert len(found) == 5
    assert found.size == len(content)
    for n, (offset, size) in enumerate(zip(found.offsets_N, found.sizes_N, strict=True)):
        assert content[offset : offset + size] == png(n)
    assert found.labels_N.tolist() == [0, 1, 2, 0, 1]
    assert found.names() == [f"{n:05}.png" for n in range(5)]
    assert found.labels_N.dtype == found.offsets_N.dtype == np.int64


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_all_formats_and_long_names_are_read(tmp_path, kind):
    key = "a.b/" + "folder/" * 20 + "ü" * 40 if kind != tarfile.USTAR_FORMAT else "a.b/c"
    path = write_tar(
        tmp_path / "a.tar", [(f"{key}.png", png(1)), (f"{key}.cls", b"cat")], format=kind
    )
    assert index(path).names() == [f"{key}.png"]
    assert index(path).classes == ("cat",)


def test_labels_are_numbers_or_names_in_cls_or_json(tmp_path):
    members = [
        ("LICENSE", b"free"),
        ("x/0001.seg.png", png(9)),
        ("x/0001.JPG", jpeg()),
        ("x/0001.cls", b" 7\n"),
        ("x/0002.webp", jpeg("WEBP")),
        ("x/0002.json", json.dumps({"label": 5, "note": [1]}).encode()),
        ("x/0003.jpeg", jpeg()),
        ("x/0003.json", b"not read where there is a .cls"),
        ("x/0003.cls", b"0"),
    ]
    found = index(write_tar(tmp_path / "a.tar", members))
    assert [found.classes[label] for label in found.labels_N] == ["7", "5", "0"]
    assert found.kind == "numbers as text"
    assert found.left_out == {"other members without an ending": 1, "further images of a sample": 1}
    named = [
        ("1.png", png(1)),
        ("1.cls", b"owl"),
        ("2.png", png(1)),
        ("2.json", b'{"label":"cat"}'),
    ]
    found = index(write_tar(tmp_path / "b.tar", named))
    assert found.classes == ("cat", "owl")
    assert found.labels_N.tolist() == [1, 0]


def jpeg(kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind)
    return buffer.getvalue()


def refused(path, *words):
    with pytest.raises(DataError) as caught:
        index(path)
    for word in (path.name, *words):
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            [("a.png", b"x"), ("b.cls", b"1")],
            ["holds no images", "images without a label 1", "labels without an image 1"],
        ),
        ([("a.cls", b"1")], ["labels without an image 1"]),
        ([("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")], ["'a.cls'", "2 images"]),
        ([("a.1.png", b"x"), ("a.2.png", b"x"), ("a.cls", b"1")], ["'a.cls'", "2 images"]),
        ([("a.png", b"x"), ("a.cls", b"1"), ("a.cls", b"2")], ["'a.cls'", "two labels"]),
        ([("a.png", b"x"), ("a.cls", b"")], ["'a.cls'", "'' is neither a number nor"]),
        ([("a.png", b"x"), ("a.cls", b"\xff")], ["'a.cls'", "gives no label"]),
        ([("a.png", b"x"), ("a.cls", b"n" * 300)], ["'a.cls'", "neither"]),
        ([("a.png", b"x"), ("a.cls", b"1" * 2_000_000)], ["'a.cls'", "2,000,000 bytes"]),
        ([("a.png", b"x"), ("a.json", b"{")], ["'a.json'", "gives no label"]),
        ([("a.png", b"x"), ("a.json", b"[" * 100_000)], ["'a.json'", "gives no label"]),
        ([("a.png", b"x"), ("a.json", b'{"class": 1}')], ["'a.json'", "no key 'label'"]),
        ([("a.png", b"x"), ("a.json", b'{"label": true}')], ["'a.json'", "True is neither"]),
        ([("a.png", b"x"), ("a.json", b'{"label": 1.5}')], ["'a.json'", "1.5 is neither"]),
        ([("a.png", b"x"), ("a.json", b"[1]")], ["'a.json'", "gives no label"]),
        ([("readme.txt", b"x")], ["holds no images"]),
        ([], ["holds no images"]),
    ],
)  # fmt: skip
def test_shards_with_impossible_members_are_refused(tmp_path, members, words):
    refused(write_tar(tmp_path / "s.tar", members), *words)


def test_truncated_and_foreign_shards_are_refused(tmp_path):
    whole = write_tar(tmp_path / "s.tar", samples(range(4))).read_bytes()
    found = index(tmp_path / "s.tar")
    data_end = int(found.offsets_N[-1] + 512 * 4)
    for cut in (100, 700, int(found.offsets_N[2]) + 5, int(found.offsets_N[3]) - 512):
        (tmp_path / "s.tar").write_bytes(whole[:cut])
        refused(tmp_path / "s.tar", "truncated")
    (tmp_path / "s.tar").write_bytes(whole[: data_end + 10_000] + whole)
    refused(tmp_path / "s.tar", "joined tars")
    for content in (b"", b"junk" * 1000, b"\x1f\x8b\x08" + b"0" * 600):
        (tmp_path / "s.tar").write_bytes(content)
        refused(tmp_path / "s.tar")


def test_a_tar_made_to_run_in_circles_is_refused(tmp_path):
    path = write_tar(tmp_path / "s.tar", samples(range(1)))
    header = bytearray(path.read_bytes())
    header[124:136] = (-512 % 256**12).to_bytes(12, "big")  # a size of -512 bytes
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    refused(path, "no readable tar")


BLOCK = tarfile.BLOCKSIZE


def header(name="a.png", size=0, kind=b"0", **fields):
    """One block, whatever it claims."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    number = size if isinstance(size, bytes) else b"%011o\0" % size
    block[124:136] = number.ljust(12, b"\0")
    block[156:157] = kind
    for place, value in fields.items():
        start = int(place.removeprefix("at_"))
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:BLOCK])
    return bytes(block[:BLOCK])


def padded(content):
    return content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0")


def long_name(name, kind=b"L"):
    return header("././@LongLink", len(name), kind) + padded(name)


def pax(text):
    return header("pax", len(text), b"x") + padded(text)


END = bytes(2 * BLOCK)
BIG = b"\x80" + (2**63).to_bytes(11, "big")
SAMPLE = header("a.png", 1) + padded(b"x") + header("a.cls", 1) + padded(b"1")

HOSTILE = {
    "a size of 2^63": header(size=BIG) + END,
    "a size of 2^87": header(size=b"\x80" + b"\xff" * 11) + END,
    "a negative size": header(size=b"\xff" * 12) + END,
    "a size that is no number": header(size=b"hello") + END,
    "a size beyond the end": header(size=10**9) + END,
    "a long name of 100 MB that is not there": header("x", 10**8, b"L") + END,
    "a long name of 1 MB": long_name(b"x" * 10**6) + SAMPLE + END,
    "a name of 2,000 characters": long_name(b"y" * 2000) + SAMPLE + END,
    "a long name of a negative size": header("x", b"\xff" * 12, b"L") + END,
    "long names in a chain": long_name(b"x" * 200) * 5000 + SAMPLE + END,
    "long links in a chain": long_name(b"x" * 200, b"K") * 5000 + SAMPLE + END,
    "pax headers in a chain": pax(b"11 path=xx\n") * 5000 + SAMPLE + END,
    "a pax header of 10 MB": pax(b"x" * 10**7) + SAMPLE + END,
    "a pax header of 2^63": header("x", BIG, b"x") + SAMPLE + END,
    "a pax header of digits": pax(b"1" * 60_000) + SAMPLE + END,
    "a pax size of 10^30": pax(b"41 size=" + b"9" * 30 + b"\n") + SAMPLE + END,
    "a negative pax size": pax(b"11 size=-5\n") + SAMPLE + END,
    "a pax size that is no number": pax(b"12 size=abc\n") + SAMPLE + END,
    "a name with a NUL": pax(b"13 path=a\0.png\n"[:14]) + SAMPLE + END,
    "a sparse member": header("a.png", 512, b"S", at_482=b"\1") + b"\xff" * 5 * BLOCK,
    "a sparse map without an end": header("a.png", 512, b"S", at_482=b"\1") + b"\1" * 900 * BLOCK,
    "a sparse map of pax that ends too early": pax(
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=a.png\n"
        b"28 GNU.sparse.realsize=100\n"
    )
    + header("a.png", 512)
    + b"99999\n".ljust(BLOCK, b"\0"),
    "a global header of 10 MB": header("g", 10**7, b"g") + bytes(10**7),
    "no end": SAMPLE,
    "half a header": SAMPLE + header()[:300],
    "a wrong checksum": SAMPLE + header()[:100] + b"!" + header()[101:] + END,
    "many members of one sample": header("a.x") * 200 + SAMPLE + END,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tars_end_in_one_message(tmp_path, name):
    (tmp_path / "s.tar").write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=r"the shard 's\.tar' ") as caught:
        index(tmp_path / "s.tar")
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


def test_hostile_names_and_links_are_no_more_than_names(tmp_path):
    links = header("l", 10**9, b"1", at_157=b"a.png") + header("m", 0, b"2", at_157=b"m")
    content = links + SAMPLE
    for name in (b"../" * 50 + b"etc", b"/dev/zero", b"a\nb", b"a\x1b[2J", b"\xff\xfe"):
        for ending in (b".png", b".cls"):
            content += long_name(name + ending) + header("x", 1) + padded(b"1")
    (tmp_path / "s.tar").write_bytes(content + END)
    assert len(index(tmp_path / "s.tar")) == 6


def test_members_and_headers_are_bounded_in_number(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "s.tar", samples(range(4)))
    monkeypatch.setattr("elastic_nas.data.tar.MOST_MEMBERS", 7)
    refused(path, "more than 7 members")
    monkeypatch.setattr("elastic_nas.data.tar.MOST_MEMBERS", 8)
    assert len(index(path)) == 4


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_tars_are_read_or_refused(data):
    content = bytearray(FUZZED)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.one_of(st.integers(0, len(content) - 1), st.sampled_from(HEADERS)))
        new = data.draw(st.one_of(st.binary(min_size=1, max_size=12), st.sampled_from(TELLING)))
        content[at : at + len(new)] = new
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    for start in range(0, len(content) - BLOCK, BLOCK):  # so that damage is not all in checksums
        if content[start + 257 : start + 262] == b"ustar" and data.draw(st.booleans()):
            content[start + 148 : start + 156] = b" " * 8
            total = sum(content[start : start + BLOCK])
            content[start + 148 : start + 156] = b"%06o\0 " % total
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        with suppress(DataError):
            found = read_index(file, "s.tar")
            assert (found.offsets_N + found.sizes_N <= len(content)).all()
            assert len(found.names()) == len(found)


FUZZED = (
    SAMPLE
    + pax(b"14 path=d.png\n") + header("x", 1) + padded(b"x") + header("d.json", 11)
    + padded(b'{"label":2}') + long_name(b"e.png") + header("x", 1) + padded(b"x")
    + long_name(b"e.cls") + header("x", 1) + padded(b"0") + END
)  # fmt: skip
HEADERS = [
    start + place
    for start in range(0, len(FUZZED), BLOCK)
    for place in (0, 124, 148, 156, 157, 257, 345, 482)
]
TELLING = [b"L", b"K", b"x", b"g", b"S", b"1", b"5", BIG, b"\xff" * 12, b"7" * 11, b"\0" * 12]


def test_a_shard_that_is_no_regular_file_is_refused_at_once(tmp_path, shards):
    path = tmp_path / "some.yaml"
    os.mkfifo(tmp_path / "pipe.tar")
    kinds = {"/dev/zero": "a device", "pipe.tar": "a pipe", "set": "a folder"}
    for name, kind in kinds.items():
        path.write_text(f"train: {name}\n")
        with pytest.raises(DataError, match=f"{name}': it is {kind}, not a file"):
            load_dataset(str(path))
    train = load_dataset(str(shards)).train
    (shards / "train-00000.tar").unlink()
    os.mkfifo(shards / "train-00000.tar")
    with pytest.raises(DataError, match="it is a pipe, not a file"):
        train.image(0)


def test_links_and_folders_in_a_tar_are_passed_over(tmp_path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for kind, name in ((tarfile.SYMTYPE, "0.png"), (tarfile.DIRTYPE, "1.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name, content in samples(range(5, 6)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert index(path).names() == ["00005.png"]


def test_shards_are_indexed_once_and_again_when_changed(shards, monkeypatch, capsys):
    load_dataset(str(shards))
    assert "Indexing shards (once): 6/6" in capsys.readouterr().err
    made = []
    monkeypatch.setattr(
        "elastic_nas.data.shards.read_index",
        lambda f, name, *rest: made.append(name) or read_index(f, name, *rest),
    )
    before = load_dataset(str(shards)).train
    assert not made
    write_tar(shards / "train-00001.tar", samples(range(15, 33)))
    after = load_dataset(str(shards)).train
    assert made == [str(shards / "train-00001.tar")]
    assert len(after) == len(before) + 3


def test_damaged_or_unwritable_indices_are_made_anew(shards, monkeypatch, tmp_path):
    expected = load_dataset(str(shards)).train.sha256
    for path in (user_folder() / "indices").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert load_dataset(str(shards)).train.sha256 == expected
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "file"))
    assert load_dataset(str(shards)).train.sha256 == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_kept_index_is_noticed(data):
    content = bytearray(KEPT)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    if bytes(content) == KEPT:
        return
    with pytest.raises(ValueError, match="damaged"):
        kept_module._loaded(bytes(content))


INDEX = Index(
    1000, np.array([512, 100]), np.array([9, 900]), np.array([0, 1]),
    np.arange(32, dtype=np.uint8).reshape(2, 16), ("a", "b"), "names", "x.png\0y.png",
    {"other members .txt": 3}, "tag\0001000",
)  # fmt: skip
KEPT = kept_module._dumped(INDEX)


def test_an_index_is_kept_as_it_is():
    found = kept_module._loaded(KEPT)
    for name in ("size", "classes", "kind", "members", "left_out", "version"):
        assert getattr(found, name) == getattr(INDEX, name)
    np.testing.assert_array_equal(found.identities, INDEX.identities)
    for name in ("offsets_N", "sizes_N", "labels_N"):
        np.testing.assert_array_equal(getattr(found, name), getattr(INDEX, name))
        assert getattr(found, name).dtype == np.int64


@pytest.mark.parametrize(
    "impossible",
    [
        {"offsets_N": np.array([-1, 100])},
        {"offsets_N": np.array([512, 101])},
        {"sizes_N": np.array([9, -9])},
        {"sizes_N": np.array([9, 2**62])},
        {"labels_N": np.array([0, 2])},
        {"labels_N": np.array([-1, 0])},
        {"kind": "words"},
        {"members": "x.png"},
        {"members": "x\0y\0z"},
        {"size": 900},
        {"size": -1},
    ],
)
def test_a_kept_index_of_what_cannot_be_is_made_anew(tmp_path, monkeypatch, impossible):
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path))
    path = kept_module._place("key")
    path.parent.mkdir(parents=True)
    with suppress(ValueError):
        path.write_bytes(kept_module._dumped(replace(INDEX, **impossible)))
    assert kept_module.kept("key", lambda: INDEX) is INDEX
    assert kept_module.kept("key", lambda: 1 / 0).members == INDEX.members


def test_a_kept_index_that_is_no_file_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path))
    path = kept_module._place("key")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert kept_module.kept("key", lambda: INDEX) is INDEX


def test_indices_take_bytes_not_objects(shards):
    images = load_dataset(str(shards)).train._images
    assert {type(value) for value in vars(images.indices[0]).values()} == {
        int, np.ndarray, tuple, str, dict
    }  # fmt: skip
    assert images.indices[0].classes == ("0", "1", "2")


def named(folder, part, pairs):
    members = [m for key, name in pairs for m in ((f"{key}.png", png(key)), (f"{key}.cls", name))]
    write_tar(folder / f"{part}-0.tar", members)


def test_names_of_different_shards_are_joined(tmp_path):
    named(tmp_path, "train", [(n, (b"cat", b"owl")[n % 2]) for n in range(1, 9)])
    write_tar(tmp_path / "train-1.tar", [("9.png", png(9)), ("9.cls", b"dog")])
    named(tmp_path, "val", [(33, b"owl")])
    named(tmp_path, "test", [(43, b"dog"), (44, b"cat")])
    dataset = load_dataset(str(tmp_path))
    assert dataset.labels == ("cat", "dog", "owl")
    assert dataset.train.labels.tolist() == [2, 0] * 4 + [1]
    assert dataset.validation.labels.tolist() == [2]
    assert dataset.test.labels.tolist() == [1, 0]


def test_a_list_of_classes_names_the_numbers(shards):
    (shards / "classes.txt").write_text("ant\nbee\n\ncat\n")
    assert load_dataset(str(shards)).labels == ("ant", "bee", "cat")
    named(shards, "test", [(1, b"cat")])
    with pytest.raises(DataError, match=r"label of .* is '0', which is none of the 3 classes"):
        load_dataset(str(shards))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ant\nbee\n", ["00002.png in ", "train-00000.tar", "is '2'", "none of the 2 classes"]),
        ("ant\nbee\ncat\ndog\n", ["the class 'dog'", "no images in train"]),
        ("ant\nbee\nant\n", ["'ant' stands twice", "classes.txt"]),
    ],
)
def test_a_list_of_classes_that_does_not_fit_is_refused(shards, text, words):
    (shards / "classes.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        load_dataset(str(shards))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_class_that_is_only_tested_is_refused(shards):
    write_tar(shards / "test-00000.tar", [("8.png", png(8)), ("8.cls", b"3")])
    with pytest.raises(DataError) as caught:
        load_dataset(str(shards))
    for word in ("class '3'", "in test but not in train", "8.png in ", "test-00000.tar"):
        assert word in str(caught.value)


def test_labels_below_zero_are_refused(shards):
    write_tar(shards / "train-00000.tar", [("8.png", png(8)), ("8.cls", b"-1")])
    with pytest.raises(DataError, match="is '-1', which is none of the 3 classes"):
        load_dataset(str(shards))


def test_numbers_with_gaps_are_classes_of_these_names(tmp_path):
    named(tmp_path, "train", [(n, (b"2", b"10", b"9")[n % 3]) for n in range(12)])
    assert load_dataset(str(tmp_path)).labels == ("2", "9", "10")


@pytest.mark.parametrize("names", [["1", "2", "3"], ["01", "02", "03"], ["3d", "4", "cat"]])
def test_numbered_classes_are_named_as_folders_are(tmp_path, names):
    pairs = [(n * 3 + c, name.encode()) for n in range(4) for c, name in enumerate(names)]
    named(tmp_path, "train", pairs)
    assert load_dataset(str(tmp_path)).labels == tuple(names)


def test_numbers_in_one_shard_and_names_in_another_are_all_names(tmp_path):
    named(tmp_path, "train", [(n, b"4") for n in range(4)] + [(n, b"cat") for n in range(5, 9)])
    named(tmp_path, "test", [(20, b"4")])
    assert load_dataset(str(tmp_path)).labels == ("4", "cat")


def test_numbers_that_are_names_in_the_list_are_names_or_asked_for(tmp_path):
    named(tmp_path, "train", [(n, text) for n, text in enumerate([b"1", b"2", b"3"] * 4)])
    (tmp_path / "classes.txt").write_text("3\n2\n1\n")
    data = load_dataset(str(tmp_path))
    assert data.labels == ("3", "2", "1")
    assert data.train.labels[:1].tolist() in ([2], [1], [0])
    named(tmp_path, "train", [(n, text) for n, text in enumerate([b"0", b"1"] * 6)])
    (tmp_path / "classes.txt").write_text("1\n0\n")
    with pytest.raises(DataError, match=r"may be the class of that name or the number"):
        load_dataset(str(tmp_path))


def test_dots_in_names_lose_nothing(tmp_path):
    members = []
    for n in range(12):
        key = f"photo_{n:04}" if n % 2 else f"photo_{n:04}.v2"
        members += [(f"{key}.png", png(n)), (f"{key}.cls", b"%d" % (n % 3))]
    for n in range(100, 300):  # all begin alike up to the first dot
        members += [(f"camera.{n}.png", png(n)), (f"camera.{n}.cls", b"%d" % (n % 3))]
    members += [("x.v1.png", png(900)), ("x.cls", b"0"), ("bare.png", png(901))]
    write_tar(tmp_path / "train-0.tar", members)
    found = index(tmp_path / "train-0.tar")
    assert len(found) == 12 + 200 + 1
    assert found.left_out == {"images without a label": 1}
    numbers = [int(found.classes[label]) for label in found.labels_N]
    assert numbers == [n % 3 for n in range(12)] + [n % 3 for n in range(100, 300)] + [0]
    assert load_dataset(str(tmp_path)).record.head.left_out == {"images without a label": 1}


def test_images_are_known_by_their_bytes_wherever_their_shard_lies(tmp_path):
    one = index(write_tar(tmp_path / "a.tar", samples(range(4))))
    other = index(write_tar(tmp_path / "b.tar", samples(range(4))[::-1]))
    assert one.identities.tolist() == other.identities.tolist()[::-1]
    assert one.identities[1].tobytes() == identity_of(png(1))


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("training-0.tar valid_0.tar test.tar", "train val test"),
        ("imagenet-train-000.tar imagenet-val-000.tar", "train val"),
        ("Train.tar dev-1.tar", "train val"),
    ],
)
def test_parts_of_shards_in_any_spelling(tmp_path, names, parts):
    for at, name in enumerate(names.split()):
        write_tar(tmp_path / name, samples(range(at * 30, at * 30 + 12)))
    listed = list_shards(DataConfig(source=str(tmp_path)))
    assert list(listed.parts) == parts.split()
    load_dataset(str(tmp_path))


def test_shards_of_no_part_are_asked_for(tmp_path):
    for at, name in enumerate(("part-0.tar", "part-1.tar", "held-0.tar")):
        write_tar(tmp_path / name, samples(range(at * 30, at * 30 + 12)))
    with pytest.raises(DataError, match=r"3 of 3 tars .* data\.parts=train:held,test:.*parts=none"):
        load_dataset(str(tmp_path))
    given = DataConfig(source=str(tmp_path), parts="train:part,test:held")
    assert len(load_dataset(given).test) == 12
    whole = load_dataset(DataConfig(source=str(tmp_path), parts="none"))
    assert whole.record.head.given == ["all"]
    with pytest.raises(DataError, match=r"no shard of .* is called 'other'"):
        load_dataset(DataConfig(source=str(tmp_path), parts="train:other"))
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train-0.tar.gz").touch()
    with pytest.raises(DataError, match="packed tars"):
        load_dataset(str(tmp_path / "packed"))


def test_shards_that_are_lost_or_cut_later_are_named(shards):
    train = load_dataset(str(shards)).train
    path = shards / "train-00001.tar"
    content = path.read_bytes()
    path.write_bytes(content[:6000])
    with pytest.raises(DataError, match=r"train-00001.tar' is truncated: '000\d\d.png in .*resume"):
        [train.image(i) for i in range(60)]
    path.unlink()
    with pytest.raises(DataError, match=r"train-00001.tar': No such file .* --resume"):
        train.image(20)


def test_an_image_that_cannot_be_decoded_is_named(shards):
    write_tar(shards / "test-00000.tar", [("x/8.png", b"junk"), ("x/8.cls", b"0")])
    with pytest.raises(DataError, match=r"image 'x/8.png in .*test-00000.tar': it is no image"):
        load_dataset(str(shards)).test.image(0)


def test_bytes_and_files_are_decoded_alike(tmp_path):
    (tmp_path / "a.png").write_bytes(png(4))
    assert read_image(tmp_path / "a.png").tobytes() == read_image("a", png(4)).tobytes()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("a-{008..010}.tar", ["a-008.tar", "a-009.tar", "a-010.tar"]),
        ("{x,yy}/a-{0..1}", ["x/a-0", "x/a-1", "yy/a-0", "yy/a-1"]),
        ("a-{000000..000146}.tar", [f"a-{n:06}.tar" for n in range(147)]),
    ],
)
def test_braces_are_expanded_as_in_webdataset(pattern, expected):
    assert expanded(pattern) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..999999999}", "{0..999}" * 3, "{5..4}", "{000000000..999999999}" * 20,
        "{0..9}" * 200, "{1,2}" * 300, "{" * 900, "}" * 900, "{a,{b,c}}", "{a", "a}", "{0..1}}",
    ],
)  # fmt: skip
def test_impossible_braces_are_refused(pattern):
    with pytest.raises(DataError, match=r"more than 100,000|runs from low to high|do not close"):
        expanded(pattern)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text("{}0123456789.,a", max_size=60))
def test_any_braces_are_expanded_or_refused(pattern):
    with suppress(DataError):
        assert 1 <= len(expanded(pattern)) <= 100_000


def test_a_data_file_lists_shards(shards, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(
        "train: set/train-{00000..00001}.tar\nval: set/val-*.tar\n"
        f"test: [{shards / 'test-00000.tar'}]\nclasses: [ant, bee, cat]\n"
    )
    dataset = load_dataset(str(path))
    assert dataset.name == "some"
    assert dataset.labels == ("ant", "bee", "cat")
    assert_images(dataset.train, range(35))
    assert_images(dataset.validation, range(100, 109))
    assert_images(dataset.test, range(200, 209))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", DataError, ["names no shards", "train:"]),
        ("val: a.tar", DataError, ["names no shards"]),
        ("train: 5", DataError, ["pattern or a list"]),
        ("train: []", DataError, ["pattern or a list"]),
        ("train: [a.tar, 7]", DataError, ["pattern or a list"]),
        ("train: a.tar\ntset: b.tar", DataError, ["'tset'", "did you mean 'test'?"]),
        ("train: set/train-9*.tar", DataError, ["train-9*.tar", "no shard is called"]),
        ("train: set/gone.tar", DataError, ["gone.tar", "No such file"]),
        ("train: set/train-{00000..00007}.tar", DataError, ["train-00003.tar", "No such"]),
        ("train: s3://bucket/a.tar", DataError, ["s3://", "http or https"]),
        ("train: http://example.com/a b.tar", DataError, ["no URL", "%20"]),
        ("train: set/train-*.tar\ntest: set/train-00000.tar", DataError, ["train-00000", "twice"]),
        ("train: set/train-*.tar\nclasses: 5", DataError, ["classes", "list of names"]),
        ("train: set/train-*.tar\nclasses:", DataError, ["classes", "list of names", "None"]),
        ("train: set/train-*.tar\ntest:", DataError, ["test", "pattern or a list", "None"]),
        ("train: set/train-*.tar\nclasses: [1, 2, 3]", DataError, ["in quotes"]),
        ("train: set/train-*.tar\ncache_gb: -1", DataError, ["cache_gb", "positive"]),
        ("train: set/train-*.tar\ncache_gb: .nan", DataError, ["cache_gb", "positive"]),
        ("train: set/train-*.tar\ncache_gb: .inf", DataError, ["cache_gb", "positive"]),
        ("train: set/train-*.tar\ncache_gb: 0.0001", DataError, ["cache_gb", "from 0.001"]),
        ("train: set/train-*.tar\ncache_gb: 1e7", DataError, ["cache_gb", "1,000,000"]),
        ("train: set/train-*.tar\ncache_gb: true", DataError, ["cache_gb", "got True"]),
        ("train: set/train-*.tar\ncache_gb: '5'", DataError, ["cache_gb", "got '5'"]),
        ("train: set/train-*.tar\nclasses: ant", DataError, ["classes", "list of names"]),
        ("train: set/train-*.tar\nclasses: [a, b, a]", DataError, ["'a' stands twice"]),
        ("train: set/train-*.tar\nclasses: [a, '']", DataError, ["classes", "list of names"]),
        ('train: set/train-*.tar\nclasses: [a, "b\\n"]', DataError, ["control characters"]),
        (f"train: set/train-*.tar\nclasses: [{'a' * 300}]", DataError, ["classes"]),
        ("train: set/train-*.tar\n5: x", DataError, ["unknown key '5'"]),
        ("train: set/train-*.tar\n[a]: x", ConfigError, ["not valid YAML"]),
        ("[1]", DataError, ["names no shards"]),
        ("train: {a: b}", DataError, ["pattern or a list"]),
        ("train: ''", DataError, ["pattern or a list"]),
        ('train: "a\\0b.tar"', DataError, ["control characters"]),
        ('train: "a\\eb.tar"', DataError, ["control characters"]),
        (f"train: {'a/' * 600}", DataError, ["pattern or a list"]),
        ("train: ~nobody-of-that-name/a.tar", DataError, ["~nobody-of-that-name"]),
        ("train: '*/train-*.tar'", DataError, ["only the name of a shard may hold *"]),
        ("train: /*/*/*/*/*/x.tar", DataError, ["only the name of a shard may hold *"]),
        ("train: set/**/x.tar", DataError, ["only the name of a shard may hold *"]),
        ("train: gone/*.tar", DataError, ["cannot list the folder"]),
        ("train: set/{0..2000}*.tar", DataError, ["more than 1,000 times"]),
        ("train: ['{0..99999}.tar', 'b{0..99999}.tar']", DataError, ["more than 100,000 shards"]),
        ("train: '{{a,b}.tar'", DataError, ["do not close"]),
        ("train: set", DataError, ["set': it is a folder, not a file"]),
        ("train: http://", DataError, ["no URL", "names no server"]),
        ("train: http://x:99999/a.tar", DataError, ["no URL"]),
        ("train: http://[x/a.tar", DataError, ["no URL"]),
        ("train: http://a:b@x/a.tar", DataError, ["no URL", "passwords"]),
        ("train: {", ConfigError, ["not valid YAML"]),
    ],
)
def test_impossible_data_files_are_refused(shards, tmp_path, text, error, words):
    (tmp_path / "some.yaml").write_text(text)
    with pytest.raises(error) as caught:
        load_dataset(str(tmp_path / "some.yaml"))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_star_stands_for_any_characters_and_nothing_else_does(shards, tmp_path):
    (shards / "train-00000.tar").rename(shards / "train[0].tar")
    path = tmp_path / "some.yaml"
    path.write_text(f"train: set/train[0]*.tar\ntest: {shards}/test-*.tar\ncache_gb: 200\n")
    assert_images(load_dataset(str(path)).test, range(200, 209))
    path.write_text("train: set/train-0000?*.tar\n")
    with pytest.raises(DataError, match="no shard is called"):
        load_dataset(str(path))


def test_stars_in_a_data_file_walk_no_folders(shards, tmp_path, monkeypatch):
    listed, listdir = [], os.listdir
    monkeypatch.setattr("os.listdir", lambda path: listed.append(str(path)) or listdir(path))
    path = tmp_path / "some.yaml"
    for pattern in ("/**", "/*", "set/**9", "set/" + "*a" * 400):
        path.write_text(f"train: '{pattern}'\n")
        with pytest.raises(DataError):
            load_dataset(str(path))
    assert set(listed) == {"/", str(shards)}


@pytest.mark.parametrize("source", ["~nobody-of-that-name/x", "a\0b", "x/" * 3000, "\ud800"])
def test_what_can_be_no_path_is_no_data_set(source):
    for asked in (source, f"hf:./{source}", f"{source}.yaml"):
        with pytest.raises((UnknownName, DataError, ConfigError)) as caught:
            load_dataset(asked)
        assert str(caught.value).replace("\n", "").isprintable()


def test_a_class_list_is_a_bounded_text(shards):
    path = shards / "classes.txt"
    os.mkfifo(path)
    with pytest.raises(DataError, match="it is a pipe, not a file"):
        load_dataset(str(shards))
    path.unlink()
    for content in (b"\xff", b"a\x1bb\nc", b"x" * 300):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"classes\.txt"):
            load_dataset(str(shards))
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is a device, not a file"):
        load_dataset(str(shards))


def test_a_missing_data_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.yaml"):
        load_dataset(str(tmp_path / "gone.yaml"))


def test_an_image_beyond_all_reason_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "MOST_BYTES", 100)
    refused(write_tar(tmp_path / "s.tar", samples(range(1))), "'00000.png'", "bytes")
