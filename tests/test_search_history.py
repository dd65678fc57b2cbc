import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.errors import RunFolderError
from elastic_nas.genotype import Dim, canonical, check
from elastic_nas.search.history import History, Row, read_history
from elastic_nas.search.lines import Damage, parse_lines

TIES = {"weights": "w", "split": "s", "calibration": "c"}
DIMS = (Dim("a", (1, 2)), Dim("b", (1, 2, 3), needs=(0, 0)))
ROWS = [Row((0, 1), 0.5, 100, 0.25), Row((1, 0), 0.75, 100, 0.5), Row((1, 1), 0.8, 100, 0.125)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run/history.jsonl"


def filled(path, rows=ROWS, ties=TIES):
    history = History(path, ties, DIMS)
    for row in rows:
        history.add(row)
    return history


def test_rows_come_back_in_order(path):
    written = filled(path)
    for history in (written, History(path, TIES, DIMS)):
        assert list(history) == ROWS
        assert len(history) == 3
        assert history.get((1, 0)) == ROWS[1]
        assert history.get((0, 0)) is None
        assert (1, 1) in history
        assert (0, 0) not in history
        assert history.foreign == 0


def test_a_line_is_what_the_documentation_says(path):
    filled(path, ROWS[:1])
    assert json.loads(path.read_text()) == {
        "genotype": "0,1",
        "accuracy": 0.5,
        "n": 100,
        "split": "search-validation",
        "ties": TIES,
        "seconds": 0.25,
    }


def test_rows_of_other_weights_are_kept_but_left_aside(path):
    filled(path)
    other = filled(path, ROWS[:1], {**TIES, "weights": "other"})
    assert (len(other), other.foreign) == (1, 3)
    again = History(path, TIES, DIMS)
    assert (len(again), again.foreign) == (3, 1)
    assert len(path.read_text().splitlines()) == 4


def test_no_file_is_an_empty_history_and_reading_makes_none(path):
    assert len(History(path, TIES, DIMS)) == 0
    assert not path.parent.exists()
    with pytest.raises(RunFolderError, match="run elastic-nas search first"):
        read_history(path, TIES, DIMS)


def test_of_equal_children_the_first_row_counts(path):
    filled(path, ROWS[:1])
    text = path.read_text()
    path.write_text(text + text.replace("0.5", "0.9"))
    assert list(History(path, TIES, DIMS)) == ROWS[:1]


def test_a_crash_at_any_byte_of_a_line_loses_that_line_only(path):
    filled(path, ROWS[:2])
    start = path.stat().st_size
    filled(path, ROWS[2:])
    whole = path.read_bytes()
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        before = path.read_bytes()
        history = History(path, TIES, DIMS)
        assert list(history) == ROWS[:2]
        assert read_history(path, TIES, DIMS) == ROWS[:2]
        assert path.read_bytes() == before
        history.add(ROWS[2])
        assert path.read_bytes() == whole


def test_zeros_after_a_power_cut_are_a_torn_line_too(path):
    filled(path, ROWS[:2])
    with path.open("ab") as file:
        file.write(bytes(100))
    history = History(path, TIES, DIMS)
    history.add(ROWS[2])
    assert read_history(path, TIES, DIMS) == ROWS


def spelled(**changes):
    """A good line of the file, but for the changes."""
    fields = {"genotype": '"0,1"', "accuracy": "1", "n": "1", "split": '"search-validation"'}
    fields |= {"ties": "{}", "seconds": "1", **changes}
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


def test_a_good_line_is_good(path):
    path.parent.mkdir()
    path.write_bytes(spelled() + b"\n")
    assert list(History(path, {}, DIMS)) == [Row((0, 1), 1.0, 1, 1.0)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"genotype": "0,1"}',
        spelled(genotype='"0,x"'),
        spelled(genotype="[0, 1]"),
        spelled(accuracy="NaN"),
        spelled(accuracy="1.5"),
        spelled(n="0"),
        spelled(n="1.0"),
        spelled(split='"test"'),
        spelled(ties="[]"),
        spelled(seconds="1e999"),
        spelled(seconds="-1"),
        spelled(seconds="1e10"),
        spelled(accuracy="-0.5"),
        spelled(accuracy="true"),
        spelled(accuracy='"1"'),
        spelled(accuracy="0.123"),
        spelled(n="true"),
        spelled(n="1000000000"),
        spelled(n="9" * 400),
        spelled(genotype='"0,1,0"'),
        spelled(genotype='"0"'),
        spelled(genotype='"0,3"'),
        spelled(genotype='"0,-1"'),
        spelled(genotype='"0,01"'),
        spelled(genotype='"0,99999"'),
        spelled(genotype='"0,1,"'),
        spelled(genotype='"1,0\\n"'),
        spelled(genotype='"' + "0," * 5000 + '0"'),
        spelled(ties='{"a": 1}'),
        spelled(ties='{"a": "b", "a": "c"}'),
        spelled(ties='{"a": "b""c": "d"}'),
        spelled(ties='{"a": "b", }'),
        spelled(ties='{"a": "%s"}' % ("x" * 300)),
        spelled(more="1"),
        spelled().replace(b'"n"', b'"accuracy": 1, "n"'),
        spelled() + b" " + spelled(),
        spelled(genotype='"\\ud800"'),
    ],
)
def test_a_damaged_line_is_named(path, line):
    filled(path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], line, *lines[1:]]))
    with pytest.raises(RunFolderError, match=r"^line 2 of .*history.jsonl is damaged"):
        History(path, TIES, DIMS)


def test_a_folder_in_the_way_is_an_error_with_its_name(path):
    path.mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"cannot read .*history.jsonl"):
        History(path, TIES, DIMS)


def test_a_full_disk_loses_nothing_and_the_next_try_goes_on(path, monkeypatch):
    history = filled(path, ROWS[:2])
    kept = path.read_bytes()

    def full(handle):
        os.ftruncate(handle, len(kept) + 7)  # a part of the line arrived
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunFolderError, match="No space left on device"):
            history.add(ROWS[2])
    assert ROWS[2].genotype not in history
    assert read_history(path, TIES, DIMS) == ROWS[:2]
    history.add(ROWS[2])
    assert read_history(path, TIES, DIMS) == ROWS


def test_a_row_is_on_disk_when_add_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    filled(path)
    assert len(synced) == 3
    assert synced[-1] == path.stat().st_size


def test_numbers_that_are_none_never_reach_the_file(path):
    history = filled(path, ROWS[:1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        history.add(Row((1, 1), float("nan"), 100, 1.0))
    assert list(History(path, TIES, DIMS)) == ROWS[:1]


def test_a_child_that_is_not_spelled_canonically_is_damage(path):
    dims = (Dim("a", (1, 2)), Dim("b", (1, 2, 3), needs=(0, 1)))
    path.parent.mkdir()
    path.write_bytes(spelled(genotype='"1,2"') + b"\n" + spelled(genotype='"0,2"') + b"\n")
    with pytest.raises(RunFolderError, match=r"line 2 .* canonical form"):
        History(path, {}, dims)


def test_lines_of_another_spelling_say_the_same(path):
    """Whoever sorts the keys or indents a line loses nothing."""
    filled(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line, sort_keys=True) + " \n" for line in lines))
    assert read_history(path, TIES, DIMS) == ROWS


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 7)), max_size=20))
def test_what_is_written_is_read(tmp_path_factory, found):
    rows = {(a, b): Row((a, b), right / 7, 7, right / 3) for a, b, right in found}
    path = tmp_path_factory.mktemp("h") / "history.jsonl"
    filled(path, rows.values())
    assert list(History(path, TIES, DIMS)) == list(rows.values())


LINE = spelled(genotype='"1,2"', accuracy="0.75", n="100", ties='{"weights": "w"}')


@given(st.integers(0, len(LINE) - 1), st.integers(0, 255))
def test_no_changed_byte_escapes(byte, value):
    """A line with one byte changed is the same line, another sound one, or damage."""
    changed = LINE[:byte] + bytes([value]) + LINE[byte + 1 :]
    try:
        [line] = parse_lines([changed], DIMS)
    except Damage:
        return
    assert 0 <= line.accuracy <= 1
    assert abs(line.accuracy * line.n - round(line.accuracy * line.n)) < 1e-3
    assert check(DIMS, line.genotype) == canonical(DIMS, line.genotype)


@pytest.mark.parametrize("row", [Row((0, 3), 0.5, 10, 1.0), Row((0, 1), 0.55, 10, 1.0)])
def test_what_could_not_be_read_again_is_not_written(path, row):
    history = filled(path, ROWS[:1])
    with pytest.raises(RunFolderError, match="what no history may hold"):
        history.add(row)
    assert read_history(path, TIES, DIMS) == ROWS[:1]
