"""The picture of a training: what it shows, and that it never stands in the way."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from elastic_nas.training import curves as curves_module
from elastic_nas.training.curves import PICTURE, Curves, _figure, apart, draw_curves, smoothed
from elastic_nas.training.journal import FILE_NAME, read_log

EVENT = {"step": 20, "event": "rolled back", "at": 25, "trouble": "x", "rate_factor": 0.5}
JUDGED = [{"step": s, "largest_accuracy": 0.5 + s / 100, "smallest_accuracy": 0.4, "images": 269}
          for s in (20, 40)]  # fmt: skip


def row(step, **changes):
    losses = {"largest": 2 / step, "random": 3.2 / step, "smallest": 4 / step}
    return {"step": step, "learning_rate": 0.1, **losses, "gradient_norm": 1.0, **changes}


ROWS = [row(step) for step in range(1, 41)]


def write(folder, rows):
    (folder / FILE_NAME).write_text("".join(json.dumps(r) + "\n" for r in rows))


def panels(rows, steps=50, classes=10):
    losses, accuracies, gap, rate, norm = _figure(rows, steps, classes).axes
    return losses, accuracies, gap, rate, norm


def words(axes):
    return [text.get_text().strip() for text in axes.texts]


def test_it_writes_a_png_that_opens(tmp_path):
    write(tmp_path, [*ROWS, *JUDGED, EVENT])
    draw_curves(tmp_path, 50, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, PICTURE]
    with Image.open(tmp_path / PICTURE) as image:
        assert image.size == (1440, 840)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50


def test_the_panels_show_the_numbers():
    losses, accuracies, gap, rate, norm = panels([*ROWS, *JUDGED])
    raw = {tuple(line.get_ydata()) for line in losses.lines}
    for kind in ("largest", "random", "smallest"):
        assert tuple(r[kind] for r in ROWS) in raw
    difference = [r["smallest"] - r["largest"] for r in ROWS]
    assert any(list(line.get_ydata()) == pytest.approx(difference) for line in gap.lines[1:])
    assert [list(line.get_ydata()) for line in accuracies.lines] == [[70, 90], [40, 40]]
    assert list(accuracies.lines[0].get_xdata()) == [20, 40]
    assert list(rate.lines[0].get_ydata()) == [0.1] * 40
    assert norm.get_yscale() == "log"
    assert losses.get_figure().get_suptitle() == "Training: step 40 of 50"
    assert accuracies.get_title("left") == "Search-validation accuracy on 269 images"


def test_lines_are_named_at_their_ends():
    losses, accuracies, gap, *_ = panels([*ROWS, *JUDGED])
    assert words(losses)[-3:] == ["largest 0.05", "random 0.08", "smallest 0.10"]
    assert words(accuracies) == ["largest 90.0 %", "smallest 40.0 %"]
    assert words(gap) == ["+0.05"]


def test_guessing_is_marked_where_it_is_in_sight():
    assert "guessing" not in words(panels(ROWS[10:])[0])
    many = [row(step, smallest=2.5) for step in range(1, 41)]
    losses = panels(many)[0]
    assert "guessing" in words(losses)
    assert any(list(line.get_ydata()) == [math.log(10)] * 2 for line in losses.lines)


def test_roll_backs_are_marked_in_every_panel_and_named_once():
    marked = panels([*ROWS, *JUDGED, EVENT])
    for axes in marked[:4]:
        assert sum(list(line.get_xdata()) == [20, 20] for line in axes.lines) == 1
    said = [text for axes in marked for text in words(axes) if "rolled back" in text]
    assert said == ["rolled back,\n rate \N{MULTIPLICATION SIGN} 0.5"]


@pytest.mark.parametrize("missing", [("largest", "smallest"), ("random", "smallest"), ("random",)])
def test_rules_without_some_children_have_their_picture(missing):
    rows = [{k: v for k, v in r.items() if k not in missing} for r in ROWS]
    losses, _, gap, *_ = panels(rows)
    assert len(set(words(losses)) - {"guessing"}) == 3 - len(missing)
    assert bool(gap.lines) == ("smallest" not in missing)


def test_constant_and_huge_numbers_can_be_drawn(tmp_path):
    same = [row(s, largest=1, random=1, smallest=1, gradient_norm=0.0) for s in (1, 2)]
    for rows in (same, [row(1), row(2, largest=1e30, gradient_norm=1e30)]):
        write(tmp_path, rows)
        draw_curves(tmp_path, 2, 2)
        assert (tmp_path / PICTURE).is_file()


def test_a_curve_needs_two_points(tmp_path):
    write(tmp_path, [row(1), *JUDGED])
    draw_curves(tmp_path, 50, 10)
    assert not (tmp_path / PICTURE).exists()


def test_a_failure_costs_nothing_but_the_picture(tmp_path, capsys):
    write(tmp_path, ROWS)
    (tmp_path / PICTURE).mkdir()
    Curves(tmp_path, 50, 10).draw(at_once=True)
    said = capsys.readouterr().err
    assert said.startswith("note: the picture of the training cannot be drawn (cannot write")
    assert read_log(tmp_path / FILE_NAME) == ROWS


def test_drawing_takes_a_hundredth_of_the_time(tmp_path, monkeypatch):
    now, drawn = [0.0], []

    def draw(*_):
        drawn.append(now[0])
        now[0] += 0.5

    monkeypatch.setattr(curves_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(curves_module, "draw_curves", draw)
    curves = Curves(tmp_path, 50, 10)
    for _ in range(100):
        now[0] += 1
        curves.draw(at_once=False)
    assert drawn == [1, 51.5]
    curves.draw(at_once=True)
    assert len(drawn) == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_labels_keep_their_distance_and_order(places):
    moved = apart(places, 0.06)
    ordered = sorted(moved)
    assert all(b - a >= 0.06 - 1e-9 for a, b in pairwise(ordered))
    assert all(m >= p for m, p in zip(moved, places, strict=True))
    order = sorted(range(len(places)), key=places.__getitem__)
    assert [moved[i] for i in order] == ordered


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=200))
def test_smooth_lines_equal_naive_means(values):
    half = len(values) // 60
    naive = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    assert smoothed(np.array(values)) == pytest.approx(naive, abs=1e-9)
