"""Every example in the documentation runs, in order, on a small folder of images.

Two things are shortened: trainings of minutes take seconds, and profiles take few samples.
"""

import re
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from elastic_nas.cli.app import app
from elastic_nas.latency import profile
from elastic_nas.measure import Protocol

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
YAML_NAMES = {
    "guide.md": ["my_run.yaml", "a0.yaml"],
    "data.md": ["flowers.yaml"],
    "training.md": ["recipe.yaml"],
}
PAGES = ["README.md", "docs/guide.md", "docs/latency.md", "docs/data.md", "docs/training.md"]
SHORTER = {
    "--minutes 10": "--minutes 0.03",
    "minutes=10": "minutes=0.03",
    "--latency 5ms": "--latency 50ms",  # whatever the machine
    'latency="5ms"': 'latency="50ms"',
}


def photographs(folder: Path) -> None:
    """Three classes of 12 px images that differ in colour."""
    rng = np.random.default_rng(0)
    for label, colour in (("cat", 0), ("dog", 1), ("owl", 2)):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 120, (12, 12, 3), dtype=np.uint8)
            pixels[..., colour] += 120
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``photos``, and profiles that take few samples."""
    photographs(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    quick = partial(Protocol, rounds=2, accepted_per_round=3, sample_s=2e-5, min_accept=0.01)
    monkeypatch.setattr(profile, "Protocol", quick)
    return tmp_path


def run_block(language: str, text: str, yaml_names: list[str]) -> None:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    if language == "console":
        for line in text.splitlines():
            assert line.startswith("$ elastic-nas "), line
            words = shlex.split(line)[2:]
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, f"{line}\n{result.output}"
    elif language == "python":
        exec(compile(text, "documentation", "exec"), {})
    elif language == "yaml":
        Path(yaml_names.pop(0)).write_text(text)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, workplace: Path) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    names = list(YAML_NAMES.get(Path(page).name, []))
    for language, text in blocks:
        run_block(language, text, names)
    assert not names


def test_readme_names_the_makefile_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in (ROOT / "README.md").read_text()
        assert re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=str)
def test_links_between_pages_hold(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
