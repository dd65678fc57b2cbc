"""Files of tensors from strangers: equal weights or a refusal, soon and in little memory."""

import contextlib
import io
import pickle
import resource
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elastic_nas.errors import CheckpointError
from elastic_nas.training import torch_file
from elastic_nas.training.tensor_pickle import MOST_STEPS, Described, read_pickle
from elastic_nas.training.torch_file import TorchFile, has_checksums, read_torch_file

GENERATOR = torch.Generator().manual_seed(0)
TENSORS = {
    "conv.weight": torch.randn(4, 3, 3, 3, generator=GENERATOR),
    "norm.num_batches_tracked": torch.tensor(7),
    "half": torch.randn(5, generator=GENERATOR).half(),
    "empty": torch.zeros(0, 2),
}


def saved(value: object, archive: bool = True) -> bytes:
    """As torch saves it."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=archive)
    return stream.getvalue()


FILES = {archive: saved({"state_dict": TENSORS}, archive) for archive in (True, False)}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A file that tests write again and again."""
    return tmp_path_factory.mktemp("torch") / "file"


def read(place: Path, content: bytes) -> TorchFile:
    place.write_bytes(content)
    return read_torch_file(place)


def tensors_of(file: TorchFile) -> dict[str, torch.Tensor]:
    found = file.value
    assert isinstance(found, dict)
    return {name: file.tensor(value) for name, value in found["state_dict"].items()}


def equal(got: dict[str, torch.Tensor]) -> bool:
    same = got.keys() == TENSORS.keys()
    return same and all(
        got[n].dtype == t.dtype and got[n].shape == t.shape and torch.equal(got[n], t)
        for n, t in TENSORS.items()
    )


# --- what torch saves ----------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [True, False])
def test_what_torch_saves_is_read(place, archive):
    assert equal(tensors_of(read(place, FILES[archive])))
    assert has_checksums(place) is archive


KINDS = (torch.float64, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, torch.bool])
def test_every_type_of_number_is_read_as_torch_reads_it(place, kind, archive):
    values = torch.tensor([0, 1, 3, 100]).to(kind)
    file = read(place, saved({"state_dict": {"x": values}}, archive))
    got = tensors_of(file)["x"]
    assert got.dtype == kind
    assert torch.equal(got, values)


def test_other_plain_values_beside_the_tensors(place):
    beside = {"epoch": 3, "rate": 0.5, "done": True, "name": None, "list": [1, [2]], "t": (1, "a")}
    optimiser = {"state": {0: {"momentum": torch.zeros(3)}}, "param_groups": [{"params": [0]}]}
    file = read(place, saved({**beside, "optimizer": optimiser, "big": 1 << 70}))
    assert isinstance(file.value, dict)
    assert {name: file.value[name] for name in beside} == beside
    assert file.value["big"] == 1 << 70


@pytest.mark.parametrize(
    "view", [torch.arange(6.0)[2:], torch.arange(6.0).view(2, 3).T, torch.zeros(1).expand(9)]
)
def test_views_are_refused_when_they_are_wanted(place, view):
    file = read(place, saved({"x": view}))
    assert isinstance(file.value, dict)
    with pytest.raises(ValueError, match="a view of other numbers"):
        file.tensor(file.value["x"])


def test_axes_of_length_1_have_any_stride(place):
    last = torch.ones(4, 3, 1, 1).contiguous(memory_format=torch.channels_last)
    assert torch.equal(tensors_of(read(place, saved({"state_dict": {"x": last}})))["x"], last)


# --- damage --------------------------------------------------------------------------------------


@given(st.integers(0, len(FILES[True]) - 1), st.integers(1, 255))
@settings(max_examples=1000, deadline=None)
def test_a_changed_byte_of_an_archive_is_found_or_changes_nothing(place, position, change):
    content = bytearray(FILES[True])
    content[position] ^= change
    try:
        got = tensors_of(read(place, bytes(content)))
    except (CheckpointError, ValueError):
        return
    assert equal(got)


def numbers_of(content: bytes) -> list[range]:
    """Where the older format keeps numbers: no checksum covers them."""
    places = []
    for tensor in TENSORS.values():
        raw = tensor.numpy().tobytes()
        start = content.find(raw) if raw else 0
        places.append(range(start, start + len(raw)))
    return places


@given(st.integers(0, len(FILES[False]) - 1), st.integers(1, 255))
@settings(max_examples=500, deadline=None)
def test_a_changed_byte_of_the_older_format_changes_no_structure(place, position, change):
    content = bytearray(FILES[False])
    content[position] ^= change
    if any(position in numbers for numbers in numbers_of(FILES[False])):
        return  # this cannot be found, and is said
    try:
        file = read(place, bytes(content))
        got = tensors_of(file)
    except (CheckpointError, ValueError, KeyError):
        return
    for one, other in zip(got.values(), TENSORS.values(), strict=True):  # names are checked later
        assert torch.equal(one, other) or not other.numel()


@given(st.booleans(), st.floats(0, 0.9999))
@settings(max_examples=200, deadline=None)
def test_a_truncated_file_is_refused(place, archive, share):
    content = FILES[archive]
    with pytest.raises(CheckpointError, match="nothing of it was executed or used"):
        read(place, content[: int(share * len(content))])


@given(st.binary(max_size=300), st.booleans())
@example(b"PK\x03\x04", False)
@example(b"", False)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_refused(place, content, archive):
    with pytest.raises(CheckpointError):
        read(place, b"PK\x03\x04" * archive + content)


def test_bytes_behind_the_end_are_refused(place):
    with pytest.raises(CheckpointError, match="1 bytes follow its last numbers"):
        read(place, FILES[False] + b"x")


# --- archives ------------------------------------------------------------------------------------


def archive(records: dict[str, bytes], **options) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two records with one name
        for name, content in records.items():
            file.writestr(name.rstrip(" "), content)
    return stream.getvalue()


def records() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(FILES[True])) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_an_archive_may_be_written_anew(place):
    assert equal(tensors_of(read(place, archive(records()))))


def pickle_of() -> str:
    return next(name for name in records() if name.endswith("data.pkl"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, p: {**r, p + " ": r[p]}, "two records of its archive have one name"),
        (lambda r, p: {**r, "/etc/passwd": b""}, "records outside of the pickle's folder"),
        (lambda r, p: {**r, "other/data.pkl": r[p]}, "records outside of the pickle's folder"),
        (lambda r, p: {n: c for n, c in r.items() if n != p}, "has no pickle"),
        (lambda r, p: {"/data.pkl": r[p]}, "it claims"),
        (lambda r, p: {**r, p: r[p] + b"N."}, "something follows its pickle"),
        (lambda r, p: {**r, p.replace("data.pkl", "byteorder"): b"big"}, "big-endian"),
        (lambda r, p: {**r, p.replace("data.pkl", "data/0"): b"1234"}, "claims 432 bytes of"),
        (lambda r, p: {**r, p: b""}, "ValueError|pickle"),
    ],
)
def test_wrong_records_are_refused(place, change, message):
    with pytest.raises(CheckpointError, match=message):
        read(place, archive(change(records(), pickle_of())))


def test_compressed_records_are_refused(place):
    with pytest.raises(CheckpointError, match="are compressed, which torch never does"):
        read(place, archive(records(), compression=zipfile.ZIP_DEFLATED))


def test_many_records_are_refused(place, monkeypatch):
    monkeypatch.setattr(torch_file, "MOST_RECORDS", 3)
    with pytest.raises(CheckpointError, match="more records than that of any"):
        read(place, FILES[True])


# --- hostile pickles -----------------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def storage(count: int = 1, kind: str = "FloatStorage", key: str = "0") -> bytes:
    """The instructions of a storage."""
    number = b"\x8a\x08" + struct.pack("<q", count)
    return (
        b"("
        + text("storage")
        + b"ctorch\n"
        + kind.encode()
        + b"\n"
        + text(key)
        + text("cpu")
        + number
        + b"tQ"
    )


def rebuilt(function: str, *arguments: bytes) -> bytes:
    module, name = function.rsplit(".", 1)
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


NONE, ZERO, SHAPE = b"N", b"K\x00", b"K\x01\x85"
TENSOR = (storage(), ZERO, SHAPE, SHAPE, b"\x89", b"}")
V2 = "torch._utils._rebuild_tensor_v2"

HOSTILE = {
    "a storage of a terabyte": rebuilt(V2, storage(1 << 38), *TENSOR[1:]),
    "a negative storage": rebuilt(V2, storage(-1), *TENSOR[1:]),
    "a storage of objects": rebuilt(V2, storage(kind="ObjectStorage"), *TENSOR[1:]),
    "a storage of two types": storage() + storage(kind="HalfStorage") + b"\x86",
    "another storage": rebuilt(V2, storage().replace(b"ctorch\n", b"cnumpy\n"), *TENSOR[1:]),
    "a module": b"(" + text("module") + b"ctorch.nn\nLinear\n" + NONE + NONE + b"tQ",
    "a text as storage": text("0") + b"Q",
    "quantised": rebuilt("torch._utils._rebuild_qtensor", *TENSOR),
    "sparse": rebuilt("torch._utils._rebuild_sparse_tensor", *TENSOR),
    "meta": rebuilt("torch._utils._rebuild_meta_tensor_no_storage", *TENSOR),
    "version 3": rebuilt("torch._utils._rebuild_tensor_v3", *TENSOR),
    "a Size": rebuilt("torch.Size", b"(K\x01t"),
    "empty tensors": rebuilt("torch.empty", b"\x8a\x06\x00\x00\x00\x00\x00\x01"),
    "a bytearray": rebuilt("builtins.bytearray", b"\x8a\x06\x00\x00\x00\x00\x00\x01"),
    "a range": rebuilt("builtins.range", b"\x8a\x06\x00\x00\x00\x00\x00\x01"),
    "a command": rebuilt("os.system", text("true")),
    "numpy": rebuilt("numpy.core.multiarray.scalar", NONE, NONE),
    "an ordered dict of arguments": rebuilt("collections.OrderedDict", b"]"),
    "a tensor without storage": rebuilt(V2, NONE, *TENSOR[1:]),
    "negative shapes": rebuilt(V2, storage(), ZERO, b"J\xff\xff\xff\xff\x85", SHAPE, NONE, NONE),
    "uneven shapes": rebuilt(V2, storage(), ZERO, b"K\x01K\x01\x86", SHAPE, NONE, NONE),
    "a shape of texts": rebuilt(V2, storage(), ZERO, text("a") + b"\x85", SHAPE, NONE, NONE),
    "many axes": rebuilt(V2, storage(), ZERO, *[b"(" + b"K\x01" * 99 + b"t"] * 2, NONE, NONE),
    "a tuple as key": b"}" + b"))" + b"\x86" * 1 + b"K\x01s",
    "a nested tuple as key": b"})" + b"q\x00h\x00\x86" * 1 + b"K\x01s",
    "a number as key": b"}G" + struct.pack(">d", 1) + b"K\x01s",
    "a key twice": b"}" + (text("a") + NONE + b"s") * 2,
    "doubled tuples": b")" + b"2\x86" * 100,
    "doubled by memory": b")" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60, 100)) + b"\x85R",
    "one place twice": b"Nq\x00q\x00",
    "an empty place": b"h\x05",
    "a text of 4 GB": b"X\xff\xff\xff\xffabc",
    "a number of 2 GB": b"\x8b\xff\xff\xff\x7fabc",
    "bytes of 2**60": b"\x8e" + struct.pack("<Q", 1 << 60),
    "a frame of 2**60": b"\x95" + struct.pack("<Q", 1 << 60),
    "protocol 0": pickle.dumps({"a": [1, 2.5, "b"]}, protocol=0)[:-1],
    "a decimal of 9,000 digits": b"I" + b"9" * 9000 + b"\n",
    "set and frozenset": pickle.dumps(frozenset({1}), protocol=4)[:-1],
    "an extension": b"\x82\x01",
    "no mark": b"t",
    "nothing below": b"R",
    "a mark as value": b"(",
    "two values": b"NN",
    "an object": b"ccollections\nOrderedDict\n)\x81",
    "attributes of a text": text("a") + b"}b",
    "attributes that are a text": b"}" + text("a") + b"b",
    "appended to a dict": b"}Na",
    "items of a list": b"]NNs",
    "odd items": b"}(Nu",
    "a name that is no text": b"c\xff\xff\n\xff\n",
}


def hostile_files(name: str) -> dict[str, bytes]:
    """The same pickle in both formats, as the tensors themselves."""
    program = b"\x80\x02" + HOSTILE[name] + b"."
    magic, version = pickle.dumps(torch_file._MAGIC, 2), pickle.dumps(1001, 2)
    machine = pickle.dumps({"little_endian": True}, 2)
    keys = pickle.dumps(["0"], 2)
    numbers = struct.pack("<qf", 1, 0.5)
    return {
        "archive": archive({"a/data.pkl": program, "a/data/0": numbers[8:], "a/version": b"3"}),
        "older": magic + version + machine + program + keys + numbers,
    }


@pytest.fixture
def little_memory():
    """An allocation of more than 200 MB beyond what there is fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + 200_000_000, before[1])
    )
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(place, name, little_memory):
    for content in hostile_files(name).values():
        with pytest.raises(CheckpointError, match="nothing of it was executed or used") as error:
            read(place, content)
        assert "MemoryError" not in str(error.value)


def test_the_same_frame_around_a_tensor_is_read(place, monkeypatch):
    """So that the hostile files above are refused for what they say."""
    monkeypatch.setitem(HOSTILE, "good", rebuilt(V2, *TENSOR))
    for content in hostile_files("good").values():
        file = read(place, content)
        assert isinstance(file.value, Described)
        assert file.tensor(file.value).tolist() == [0.5]


HALF = MOST_STEPS // 2 - 10
LAUGHS = (b"(" + b"h%c" % (n - 1) * 200 + b"tq%c" % n for n in range(1, 200))
BOMBS = {
    "nested tuples": b"\x80\x02)" + b"\x85" * 2 * HALF + b".",
    "nested lists": b"\x80\x02" + b"]" * HALF + b"a" * (HALF - 1) + b".",
    "a list within itself": b"\x80\x02]q\x00h\x00a.",
    "a billion laughs": b"\x80\x02](" + b")q\x00" + b"".join(LAUGHS) + b"e.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_large_only_when_it_is_walked_is_never_walked(place, name, little_memory):
    assert not read_pickle(memoryview(BOMBS[name])).storages
    assert not read(place, archive({"a/data.pkl": BOMBS[name]})).storages


def test_long_pickles_are_refused(place, little_memory):
    for program in (b"N0" * MOST_STEPS, b"(" * MOST_STEPS + b".", text("a" * (5 << 20))):
        with pytest.raises(CheckpointError):
            read(place, archive({"a/data.pkl": b"\x80\x02" + program}))


PICKLE = records()[pickle_of()]


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@given(st.lists(st.tuples(st.integers(0, len(PICKLE) - 1), st.integers(0, 255)), max_size=8))
@example([(169, 92)])
@settings(max_examples=500, deadline=None)
def test_no_pickle_does_more_than_raise_value_errors(changes):
    content = bytearray(PICKLE)
    for position, value in changes:
        content[position] = value
    with contextlib.suppress(ValueError):
        read_pickle(memoryview(bytes(content)))


def test_numpy_and_other_objects_are_named(place):
    for value, name in (
        ({"acc": np.float64(0.5)}, "numpy"),
        (OrderedDict(a=torch.nn.Linear(1, 1)), "NEWOBJ|storage|Linear"),
        ({"x": torch.zeros(3).to_sparse()}, "_get_layout"),
    ):
        with pytest.raises(CheckpointError, match=name):
            read(place, saved(value))
