"""Every example in the documentation runs, in order, on a small folder of images.

Two things are shortened: trainings of minutes take seconds, and profiles take few samples.
"""

import re
import shlex
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from elastic_nas.cli.app import app
from elastic_nas.data.dataset import load_dataset
from elastic_nas.export.onnx_file import add_metadata
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


CLASSES = ("cat", "dog", "owl")


def photographs(folder: Path, classes: Sequence[str] = CLASSES, seed: int = 0) -> None:
    """Three classes of 12 px images that differ in colour."""
    rng = np.random.default_rng(seed)
    for colour, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 120, (12, 12, 3), dtype=np.uint8)
            pixels[..., colour] += 120
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``photos`` and ``scans``, and profiles that take few samples."""
    photographs(tmp_path / "photos")
    photographs(tmp_path / "scans" / "learn")
    photographs(tmp_path / "scans" / "held", seed=1)
    monkeypatch.chdir(tmp_path)
    quick = partial(Protocol, rounds=2, accepted_per_round=3, sample_s=2e-5, min_accept=0.01)
    monkeypatch.setattr(profile, "Protocol", quick)
    return tmp_path


def recipe(page: str, word: str) -> str:
    """The one Python example of a page that has a word in it."""
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    (found,) = (text for language, text in blocks if language == "python" and word in text)
    return str(found)


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


def test_the_guide_reads_names_from_the_file_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not from lines of another file, which a name may break."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "child" / "test_data").mkdir(parents=True)
    names = ["two\nlines", "one\u2028more", "plain"]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("ReduceMean", ["input"], ["logits"], axes=[2, 3], keepdims=0)],
            "mean",
            [onnx.helper.make_tensor_value_info("input", 1, [1, 3, 2, 2])],
            [onnx.helper.make_tensor_value_info("logits", 1, [1, 3])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 13)],
        ir_version=8,
    )
    add_metadata(model, {"names": {str(number): name for number, name in enumerate(names)}})
    onnx.save(model, "child/child.onnx")
    pixels = np.zeros((1, 3, 2, 2), np.float32)
    pixels[:, 1] = 1
    np.save("child/test_data/input_0.npy", pixels)
    np.save("child/test_data/output_0.npy", pixels.mean((2, 3)))
    Path("child/manifest.json").write_text('{"parity": {"top1_agreement": 1}}')
    run_block("python", recipe("guide.md", "child.onnx"), [])
    assert capsys.readouterr().out == names[1] + "\n"


@pytest.mark.parametrize("classes", [("1", "2", "3"), ("01", "02", "03"), ("3d", "4", "cat")])
def test_the_recipe_for_shards_keeps_the_names_of_classes(
    classes: tuple[str, ...], workplace: Path
) -> None:
    """Whatever the folders are called: numbers are names, too."""
    shutil.rmtree(workplace / "photos")
    photographs(workplace / "photos", classes)
    run_block("python", recipe("data.md", "tarfile.open"), [])
    packed, folder = load_dataset("flowers"), load_dataset("photos")
    assert packed.labels == folder.labels == classes
    colours = [[], [], []]
    for index, label in enumerate(packed.train.labels.tolist()):
        colours[label].append(np.asarray(packed.train.image(index)).mean((0, 1)).argmax())
    assert [set(found) for found in colours] == [{0}, {1}, {2}]


def test_readme_names_the_makefile_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in (ROOT / "README.md").read_text()
        assert re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=str)
def test_links_between_pages_hold(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
