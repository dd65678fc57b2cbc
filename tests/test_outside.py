"""The one loader of files from outside: bounded, quick to refuse, and running nothing."""

import contextlib
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.errors import ConfigError, RunFolderError, printable
from elastic_nas.outside import (
    MOST_DEPTH,
    parse_array,
    parse_json,
    read_array,
    read_bytes,
    read_json,
    read_text,
)
from elastic_nas.yaml_file import NOT_YAML, dump_yaml, parse_yaml, read_yaml

# --- what lies at a path ----------------------------------------------------------------------


def test_devices_pipes_folders_and_sockets_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, said in (
        (Path("/dev/zero"), "it is a device"),
        (tmp_path / "link", "it is a device"),
        (tmp_path / "pipe", "it is a pipe"),
        (tmp_path, "it is a folder"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "a\0b", "embedded null"),
    ):
        done: list[str] = []

        def read(path: Path = path, done: list[str] = done) -> None:
            with pytest.raises(ConfigError) as caught:
                read_bytes(path, 10, ConfigError)
            done.append(str(caught.value))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(10)
        assert done, f"{path} keeps the reader waiting"
        assert said in done[0]


def test_one_byte_more_than_the_limit_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert read_bytes(file, 10) == b"x" * 10
    with pytest.raises(RunFolderError, match="larger than 9 bytes"):
        read_bytes(file, 9)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(RunFolderError, match="larger than"):
        read_bytes(tmp_path / "sparse", 1000)


def test_text_is_utf_8_with_or_without_its_mark(tmp_path):
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfdata: a")
    assert read_text(tmp_path / "marked") == "data: a"
    (tmp_path / "other").write_bytes(b"\xff\xfe")
    with pytest.raises(RunFolderError, match="no text file"):
        read_text(tmp_path / "other")


# --- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        ("NaN", "NaN is not a number"),
        ("[-Infinity]", "not a number"),
        ("1e999", "1e999 is not a number"),
        ("9" * 21, "a number of 21 digits"),
        ("9" * 9000, "a number of 9000 digits"),
        ("[" * 10_000, "nested too deeply"),
        ("[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2), "nested too deeply"),
        ('["\\ud800"]', "half of a character"),
        ('{"\\uDC00": 1}', "half of a character"),
        ("{'a': 1}", "Expecting property name"),
    ],
)
def test_json_that_is_not_taken(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        parse_json(text)
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_json(tmp_path / "f.json", ConfigError)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(PLAIN)
def test_json_of_plain_values_comes_back(value):
    assert parse_json(json.dumps(value)) == value


# --- YAML -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-1E5", -1e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("no", "no"),
        ("On", "On"),
        ("True", True),
        ("2001-12-14", "2001-12-14"),
        ("~", None),
        ("", None),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, value):
    assert repr(parse_yaml(f"a: {text}")) == repr({"a": value})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!bool foo", "tags"),
        ("!!python/object/apply:os.system ['true']", "tags"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("[" * 10_000, "nested too deeply"),
        ("a: " + "9" * 9000, "digits"),
        ("a: [" + "1, " * 60_000 + "]", "values"),
        ("a: 1\na: 2", "stands there twice"),
        ("[1]: 2", "unhashable"),
        ('"\\ud800": 1', "half of a character"),
        ('a: ["\\udc00"]', "half of a character"),
    ],
)
def test_yaml_that_is_not_taken(tmp_path, text, said):
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_yaml(tmp_path / "f.yaml")


@given(PLAIN)
def test_yaml_of_plain_values_comes_back(value):
    assert parse_yaml(dump_yaml(value)) == value


@given(st.text())
def test_any_text_is_a_value_or_no_yaml(text):
    with contextlib.suppress(NOT_YAML):
        parse_yaml(text)


# --- arrays -----------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_an_array_comes_back_and_nothing_else_does(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = npy(array)
    (tmp_path / "a.npy").write_bytes(content)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy", "uint8", 1000), array)
    for bad in (
        content[:-1],
        content + b"x",
        content.replace(b"(2, 3)", b"(2, 9)"),
        content.replace(b"(2, 3)", b"(-2,3)"),
        content.replace(b"|u1", b"|O8"),
        npy(array.astype(np.float32)),
        npy(np.asfortranarray(array)),
        content.replace(b"NUMPY", b"NUMPI"),
        b"",
    ):
        with pytest.raises(RunFolderError, match="no array of uint8"):
            parse_array(bad, "uint8", "a.npy")


@given(st.data())
def test_a_damaged_array_is_refused_or_of_the_same_kind(data):
    content = bytearray(npy(np.arange(6, dtype=np.float32).reshape(2, 3)))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        array = parse_array(bytes(content), "float32", "a.npy")
    except RunFolderError:
        return
    assert array.dtype == np.float32
    assert array.size == 6


# --- what messages may hold -------------------------------------------------------------------


@given(st.text(max_size=5000))
def test_messages_are_short_and_printable(text):
    for said in (printable(text), str(ConfigError(text))):
        assert len(said) <= 2000
        assert said.replace("\n", "").isprintable()
        said.encode()
    if text.isprintable() and len(text) <= 2000:
        assert printable(text) == text
