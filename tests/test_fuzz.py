"""A seeded share of the fuzzers: no traceback, no hang, no changed figure believed.

The long run is by hand: tools/fuzz.py.
"""

import os
import time
from math import inf
from pathlib import Path

import pytest
from fuzzing import runner
from fuzzing.kinds import Kind, RefusedError
from fuzzing.runner import FAULTS, fuzz, grouped
from fuzzing.seeds import make_seeds
from fuzzing.targets import KINDS

from elastic_nas.errors import DataError

SEED = 20261125
CASES = 40
"""Of a kind whose share is 1."""
LEAST = 3


@pytest.fixture(scope="module")
def seeds(made_run, tmp_path_factory):
    return make_seeds(tmp_path_factory.mktemp("fuzz"), made_run)


@pytest.mark.parametrize("make", KINDS, ids=[make.__name__ for make in KINDS])
def test_damaged_files_are_refused_or_say_what_is_read(seeds, make):
    kind = make(seeds)
    numbers = range(max(LEAST, round(CASES * kind.share)))
    counts = fuzz(kind, SEED, numbers, inf, None)
    assert not counts.findings, "\n" + "\n".join(grouped(counts.findings))
    assert counts.cases == 1 + len(numbers)


# --- the fuzzer itself ---------------------------------------------------------------------------


def broken(content: bytes, folder: Path) -> None:
    raise KeyError("sha256")


def slow(content: bytes, folder: Path) -> None:
    time.sleep(60)


def busy(content: bytes, folder: Path) -> None:
    while True:
        pass


def deaf(content: bytes, folder: Path) -> None:
    os.kill(os.getpid(), 11)


def greedy(content: bytes, folder: Path) -> None:
    with memoryview(bytearray(600 << 20)) as taken:
        taken[::4096] = bytes(len(taken[::4096]))
    raise DataError("too large")


def huge(content: bytes, folder: Path) -> None:
    bytearray(1 << 40)


def rude(content: bytes, folder: Path) -> None:
    raise RefusedError("x" * 3000)


def strict(content: bytes, folder: Path) -> None:
    raise RefusedError("it was changed")


def gullible(content: bytes, folder: Path) -> bytes:
    return content


def told(content: bytes, result: bytes, sealed: bool) -> str:
    return "" if result is None else "another figure"


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (broken, "traceback"),
        (slow, "hang"),
        (busy, "hang"),
        (deaf, "death"),
        (greedy, "memory"),
        (huge, "memory"),
        (gullible, "acceptance"),
        (strict, "refused"),
    ],
)
def test_what_goes_wrong_is_found_and_nothing_else(monkeypatch, tmp_path, read, outcome):
    monkeypatch.setattr(runner, "WAIT_S", 0.3 if read is slow else 60.0)
    monkeypatch.setattr(runner, "CPU_S", 0.3 if read is busy else 60.0)
    kind = Kind("made up", b'{"a": 1, "b": [2, 3]}', read, told, "json")
    numbers = range(0 if outcome in ("hang", "memory") else 4)
    counts = fuzz(kind, 1, numbers, inf, tmp_path)
    assert counts.cases == 1 + len(numbers)
    found = {finding.fault for finding in counts.findings}
    assert found == ({outcome} if outcome in FAULTS else {"rejection"})
    assert counts.refused == (len(numbers) if outcome == "refused" else 0)
    assert len(list(tmp_path.iterdir())) == len(counts.findings)
    assert len(grouped(counts.findings)) == 1


def test_a_message_that_is_too_long_is_found():
    kind = Kind("made up", b"abc", rude, told)
    (finding,) = fuzz(kind, 1, [], inf, None).findings
    assert finding.fault == "traceback"
    assert "a message of 3000 characters" in finding.said


def test_the_same_seed_damages_alike():
    kind = Kind("made up", b'{"a": 1, "b": [2, 3]}', gullible, told, "json")
    first = [runner.case_of(kind, 7, number) for number in range(50)]
    assert first == [runner.case_of(kind, 7, number) for number in range(50)]
    assert len(set(first)) > 40
