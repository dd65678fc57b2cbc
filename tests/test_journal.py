"""The log: rows that survive kills, what happened in the end, TensorBoard, the pace."""

import builtins
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.errors import ConfigError
from elastic_nas.training import journal as journal_module
from elastic_nas.training.journal import FILE_NAME, Journal, Pace, read_log


def log_of(folder, *lines):
    path = folder / FILE_NAME
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n"
                            for line in lines))  # fmt: skip
    return path


def test_rows_come_back_as_they_were_written_with_the_time(tmp_path):
    journal = Journal(tmp_path, tensorboard=False)
    before = time.time()
    journal.write({"step": 1, "largest": 2.5})
    journal.write({"step": 2, "largest": 1.5})
    journal.close()
    first, second = read_log(tmp_path / FILE_NAME)
    assert before <= first.pop("time") <= second.pop("time") <= time.time()
    assert [first, second] == [{"step": 1, "largest": 2.5}, {"step": 2, "largest": 1.5}]


def test_later_rows_replace_those_of_the_same_and_later_steps(tmp_path):
    path = log_of(
        tmp_path,
        {"step": 1, "loss": 1},
        {"step": 3, "loss": 2},
        {"step": 3, "accuracy": 0.1},
        {"step": 5, "loss": 3},
        {"step": 2, "event": "resumed"},
        {"step": 3, "loss": 4},
        {"step": 4, "loss": 5},
        {"step": 4, "loss": 6},
    )
    assert read_log(path) == [
        {"step": 1, "loss": 1},
        {"step": 2, "event": "resumed"},
        {"step": 3, "loss": 4},
        {"step": 4, "loss": 6},
    ]


def test_events_stay_and_numbers_of_the_step_that_was_gone_back_to(tmp_path):
    rows = [
        {"step": 5, "loss": 1},
        {"step": 5, "accuracy": 0.5},
        {"step": 5, "event": "rolled back", "at": 9},
        {"step": 7, "loss": 2},
        {"step": 5, "event": "rolled back", "at": 8},
    ]
    assert [row for row in read_log(log_of(tmp_path, *rows)) if "event" not in row] == rows[:2]
    assert [row["at"] for row in read_log(log_of(tmp_path, *rows)) if "event" in row] == [9, 8]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 8)), min_size=1, max_size=6))
def test_a_log_of_kills_reads_like_that_of_the_last_way(tmp_path_factory, spans):
    """Each span goes on from where an earlier one was, in steps of 1; naive: a dict by step."""
    folder = tmp_path_factory.mktemp("log")
    lines, expected = [], {}
    starts = [0, *(min(back, reached) for back, reached in spans[1:])]
    for span, (start, (_, length)) in enumerate(zip(starts, spans, strict=True)):
        first = min(start, max(expected, default=0))
        expected = {step: row for step, row in expected.items() if step <= first}
        for step in range(first + 1, first + length + 1):
            expected[step] = {"step": step, "span": span}
            lines.append(expected[step])
    assert read_log(log_of(folder, *lines)) == list(expected.values())


def test_damaged_lines_are_left_out_and_no_file_is_no_row(tmp_path):
    path = log_of(
        tmp_path, {"step": 1}, "{", "[1]", '{"step": "2"}', '{"loss": 1}', "\x00", "[" * 9999
    )
    path.write_bytes(path.read_bytes() + b'\xff\n{"step": 3}\n{"step": 4, "lo')
    assert read_log(path) == [{"step": 1}, {"step": 3}]
    assert read_log(tmp_path / "nothing") == []


def test_a_row_after_a_cut_line_is_not_glued_to_it(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"step": 1}\n{"step": 2, "lo')
    Journal(tmp_path, tensorboard=False).write({"step": 2})
    assert [row["step"] for row in read_log(tmp_path / FILE_NAME)] == [1, 2]


def test_numbers_that_json_does_not_know_are_a_defect(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Journal(tmp_path, tensorboard=False).write({"step": 1, "loss": float("nan")})


def test_a_missing_tensorboard_is_told_before_the_training(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "torch.utils.tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install elastic-nas\[tensorboard\]"):
        Journal(tmp_path, tensorboard=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("default")
def test_tensorboard_shows_what_happened_in_the_end(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal(tmp_path, tensorboard=True)
    for step in range(1, 6):
        journal.write({"step": step, "largest": float(step), "learning_rate": 0.1})
    journal.go_back(2, "rolled back", at=5)
    for step in (3, 4):
        journal.write({"step": step, "largest": 10.0 * step, "largest_accuracy": 0.5})
    journal.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {
        "loss/largest", "accuracy/largest", "training/learning_rate", "training/at"
    }  # fmt: skip
    losses = [(e.step, e.value) for e in found.Scalars("loss/largest")]
    assert losses == [(1, 1), (2, 2), (3, 30), (4, 40)]


def test_the_pace_counts_images_and_waiting(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])

    def batches():
        for _ in range(4):
            now[0] += 1.0  # to make a batch
            yield "batch"

    pace = Pace(images=32, steps=1000)
    for seen, _ in enumerate(pace.timed(batches()), 1):
        assert pace.is_due == (seen in (2, 4))
        now[0] += 3.0 if seen > 1 else 0.5  # to train on it
        if seen == 2:
            assert pace.figures() == {"waited": round(2 / 5.5, 4), "images_per_s": 11.6}
            pace.restart()
    assert pace.figures() == {"waited": 0.25, "images_per_s": 8.0}


def test_a_long_training_has_no_endless_log(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    pace, rows = Pace(images=1, steps=50_000), 0
    for _ in pace.timed(iter(range(50_000))):
        now[0] += 10
        if pace.is_due:
            rows += 1
            pace.restart()
    assert rows == 5000
