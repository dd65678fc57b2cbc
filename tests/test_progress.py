"""What a person who waits sees, on a terminal and elsewhere."""

import io
import sys

import pytest

from elastic_nas import progress
from elastic_nas.progress import Tracker, clock, track


@pytest.fixture
def now(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_line_tells_figures_time_left_and_the_note(now, capsys):
    tracker = Tracker("training", 40, 10)
    assert tracker.line() == "10/40"
    now[0] = 1
    tracker.done = 11
    assert tracker.line() == "11/40"
    tracker.done = 10
    now[0] = 20
    tracker.advance(10, "loss 2.3")
    assert tracker.line() == "20/40, 0.5/s, 0:40 left; loss 2.3"
    tracker.advance()
    assert capsys.readouterr().err == "training: 20/40, 0.5/s, 0:40 left; loss 2.3\n"


def test_steps_that_are_done_again_count_from_the_roll_back(now):
    tracker = Tracker("training", 40, 0)
    now[0] = 10
    tracker.advance(20)
    tracker.go_to(5)
    now[0] = 15
    tracker.advance(5)
    assert tracker.figures() == "10/40, 1/s, 0:30 left"


def test_a_terminal_shows_the_note_below_the_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    with track("training", 2) as bar:
        bar.advance(2, "loss " + "[2.3] " * 30)
    last = [line for line in screen.getvalue().splitlines() if "2/2" in line or "loss" in line][-2:]
    assert "training" in last[0]
    assert "loss [2.3]" in last[1]
    assert "\N{HORIZONTAL ELLIPSIS}" in last[1]


def test_clock():
    assert [clock(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]


def test_what_is_said_moves_no_cursor(now, capsys):
    progress.say("class \x1b[2Jcat\r, \udcff")
    Tracker("\x1btitle", 1, 0).advance(1, "\x07note")
    said = capsys.readouterr().err
    assert "\\x1b[2Jcat\\r, \\udcff\n" in said
    assert said.replace("\n", "").isprintable()
