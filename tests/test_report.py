import logging
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from elastic_nas.errors import RunFolderError
from elastic_nas.report import Chosen, Point, _figure, plot_front

RNG = Random(0)
POINTS = [Point(2 ** RNG.uniform(0, 4), RNG.uniform(0.6, 0.9)) for _ in range(60)]
CHOSEN = Chosen("best within 5 ms", 4.9, 4.6, 0.88, measured_ms=4.7, test=(0.86, 0.84, 0.88))


def draw(path, **changes):
    arguments = {"device": "pi-4", "n": 1234, "points": POINTS, "chosen": [CHOSEN]}
    return plot_front(path, **{**arguments, **changes})


def axes_of(points=POINTS, chosen=(CHOSEN,), budget_ms=5.0):
    return _figure("pi-4", 1234, points, chosen, budget_ms).axes[0]


def test_writes_a_png_and_an_svg_that_open(tmp_path):
    png, svg = draw(tmp_path / "fronts/pi-4.v2", budget_ms=5.0)
    assert [png.name, svg.name] == ["pi-4.v2.png", "pi-4.v2.svg"]
    assert sorted(path.name for path in png.parent.iterdir()) == [png.name, svg.name]
    with Image.open(png) as image:
        assert image.size == (1200, 810)
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    assert ET.parse(svg).getroot().tag.endswith("svg")


def test_the_same_front_gives_the_same_bytes(tmp_path):
    one, other = draw(tmp_path / "one"), draw(tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_the_axes_say_what_they_show():
    axes = axes_of()
    assert axes.get_xlabel() == "latency at batch 1 (ms); children stand at their bound"
    assert axes.get_ylabel() == "accuracy on search-validation (%)"
    assert axes.get_title("left") == "Children on pi-4, each judged on 1,234 images"
    assert [text.get_text() for text in axes.texts] == ["budget 5 ms "]
    front = len(
        [
            p
            for p in POINTS
            if not any(
                q.bound_ms <= p.bound_ms and q.accuracy >= p.accuracy and q != p for q in POINTS
            )
        ]
    )
    assert axes.get_legend_handles_labels()[1] == [
        "evaluated children (60)",
        f"Pareto front ({front})",
        "best within 5 ms: predicted to bound",
        "best within 5 ms: measured, on test with 95 % interval",
    ]


def test_what_was_not_measured_is_not_drawn():
    labels = axes_of(chosen=[Chosen("it", 2.0, 1.9, 0.8)]).get_legend_handles_labels()[1]
    assert labels[2:] == ["it: predicted to bound"]
    labels = axes_of(chosen=[Chosen("it", 2.0, 1.9, 0.8, 1.95)]).get_legend_handles_labels()[1]
    assert labels[3:] == ["it: measured"]


def test_the_step_line_goes_on_to_the_slowest_child():
    points = [Point(1, 0.5), Point(2, 0.7), Point(3, 0.6)]
    line = axes_of(points, ()).lines[1]
    assert line.get_drawstyle() == "steps-post"
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == [50, 70, 70]


def test_the_axis_is_logarithmic_where_the_range_is_wide():
    assert axes_of().get_xscale() == "log"
    assert axes_of([Point(1, 0.5), Point(3.9, 0.6)]).get_xscale() == "linear"


def test_one_child_and_names_that_look_like_formulas_are_no_trouble(tmp_path):
    strange = Chosen("cost $5 \\frac", 1.0, 0.9, 0.5)
    draw(tmp_path / "one", device="a_$b^2 \\x$", points=[Point(1.0, 0.5)], chosen=[strange])
    assert "$" in axes_of(chosen=[strange]).get_legend_handles_labels()[1][2]


def test_a_picture_that_cannot_be_written_is_an_error_with_its_name(tmp_path):
    (tmp_path / "fronts").write_text("a file in the way")
    with pytest.raises(RunFolderError, match=r"cannot write .*pi\.png"):
        draw(tmp_path / "fronts/pi")


def test_nothing_reaches_the_terminal_even_where_no_cache_can_be_kept(tmp_path):
    (tmp_path / "file").write_text("in the way")
    code = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path\n"
        "from test_report import draw; draw(Path(sys.argv[1]) / 'front')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {"MPLCONFIGDIR": str(tmp_path / "file" / "cache"), "PYTHONPATH": "."}
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=root,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_loggers_are_left_alone(tmp_path):
    before = logging.getLogger().level
    draw(tmp_path / "one")
    assert logging.getLogger().level == before
