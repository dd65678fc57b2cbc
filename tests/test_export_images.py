"""An export is tied to its images: they are found by content, and none that was seen is scored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import DEVICE, SPACE, cli, done, facts, refused

from elastic_nas.export.artefact import label_lines
from elastic_nas.files import sha256_of
from elastic_nas.report import Point, plot_front
from elastic_nas.runs import RunFolder

CLASSES = ("cat", "dog", "owl")
EACH = 40


def pictures(folder: Path, each: int = EACH, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 90, (10, 10, 3), dtype=np.uint8)
            pixels[..., number] += 120
            Image.fromarray(pixels).save(folder / name / f"{index:03}.png")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A folder of images, the run on them, and its export; not to be changed."""
    top = tmp_path_factory.mktemp("tied")
    images, run, child = pictures(top / "images"), top / "run", top / "child"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELASTIC_NAS_HOME", str(top / "home"))
        sets = [f"space={SPACE}", "train.steps=4", "train.threads=1", "train.batch_size=16"]
        done("train", "--data", images, "--out", run, *(w for s in sets for w in ("--set", s)))
        done("export", run, "--genotype", "smallest", "--out", child)
    return images, run, child


@pytest.fixture
def copies(made, tmp_path) -> tuple[Path, Path, Path]:
    """The same, which a test may spoil."""
    names = ("images", "run", "child")
    paths = [Path(shutil.copytree(at, tmp_path / n)) for at, n in zip(made, names, strict=True)]
    return paths[0], paths[1], paths[2]


def test_names(run: Path) -> list[str]:
    """Below the folder, of the run's test images."""
    from elastic_nas.data.record import SIDES, read_record

    record = read_record(RunFolder(run).images)
    return [record.names[row] for row in np.flatnonzero(record.sides_N == SIDES.index("test"))]


test_names.__test__ = False


def manifest(child: Path) -> dict:
    return json.loads((child / "manifest.json").read_text())


def test_the_manifest_tells_what_the_figures_are_of(made):
    _, run, child = made
    images = manifest(child)["images"]
    assert sum(images["used"].values()) == EACH * len(CLASSES)
    assert set(images["missing"].values()) == {0}
    assert images["used"]["test"] == manifest(child)["accuracy"]["n"] == len(test_names(run))
    assert (child / "labels.txt").read_text() == "cat\ndog\nowl\n"


def test_an_export_says_how_many_images_were_missing(copies, tmp_path):
    images, run, child = copies
    before = manifest(child)["images"]["used"]
    name = test_names(run)[0]
    (images / name).unlink()
    said = run / "run.yaml"
    lines = [line.partition("  #")[0] for line in said.read_text().splitlines()]
    text = "\n".join(lines).replace("missing: refuse", "missing: accept")
    old = next(line for line in lines if line.strip().startswith("source:"))
    said.write_text(text.replace(old, f"  source: {images}") + "\n")
    out = done("export", run, "--genotype", "smallest", "--out", tmp_path / "less")
    n = before["test"]
    assert f"some were missing: {n - 1} of {n} test" in out
    less = manifest(tmp_path / "less")
    assert (less["images"]["missing"]["test"], less["accuracy"]["n"]) == (1, n - 1)


def test_moved_and_renamed_images_are_the_same(copies):
    images, run, child = copies
    for path in [*images.rglob("*.png")]:
        path.rename(path.with_name(f"z{path.name}"))
    found = facts("verify", child, "--data", images)["accuracy"]
    assert (found["same_images"], found["missing"]) == (True, 0)
    assert found["n"] == len(test_names(run))


def test_with_a_third_gone_only_test_images_are_scored(copies):
    images, run, child = copies
    gone = sorted(images.rglob("*.png"))[::3]
    lost = len({str(path.relative_to(images)) for path in gone} & set(test_names(run)))
    assert lost
    for path in gone:
        path.unlink()
    message = refused("verify", child, "--data", images)
    assert f"{lost} of the {len(test_names(run))} test images" in message
    assert "--set data.missing=accept" in message
    arguments = ("verify", child, "--data", images, "--set", "data.missing=accept")
    found = facts(*arguments)["accuracy"]
    assert (found["same_images"], found["missing"]) == (False, lost)
    assert found["n"] == len(test_names(run)) - lost
    assert f"the other {found['n']}." in cli(*arguments).stderr


def test_new_images_are_left_out_and_counted(copies):
    images, run, child = copies
    for index in range(7):
        Image.new("RGB", (9, 9), (index, 5, 5)).save(images / "cat" / f"new{index}.png")
    result = cli("verify", child, "--data", images)
    assert result.exit_code == 0
    assert "7 images of" in result.stderr
    assert facts("verify", child, "--data", images)["accuracy"]["n"] == len(test_names(run))


def test_the_test_images_alone_are_enough(copies, tmp_path):
    images, run, child = copies
    for name in test_names(run):
        place = tmp_path / "alone" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / name, place)
    assert facts("verify", child, "--data", tmp_path / "alone")["accuracy"]["same_images"] is True


def test_what_was_trained_on_is_never_scored(copies):
    images, run, child = copies
    for name in test_names(run):
        (images / name).unlink()
    message = refused("verify", child, "--data", images)
    assert "was trained or selected on" in message


def test_other_data_are_scored_on_their_own_test_split(made, tmp_path):
    *_, child = made
    result = cli("verify", child, "--data", pictures(tmp_path / "other", 20, seed=9), "--json")
    if result.exit_code:  # the little child may well answer otherwise on other pictures
        assert "other data" in result.stderr
    else:
        assert json.loads(result.stdout)["accuracy"]["same_images"] is False
    assert "it is other data" in result.stderr


@pytest.mark.parametrize("change", ["renamed", "added"])
def test_other_classes_are_refused_with_both_sides_named(copies, change):
    images, _, child = copies
    if change == "renamed":
        (images / "cat").rename(images / "zebra")
    else:
        shutil.copytree(images / "cat", images / "ant")
        for path in (images / "ant").iterdir():
            path.write_bytes(path.read_bytes() + b"x")
    message = refused("verify", child, "--data", images)
    assert "labels.txt (3): 'cat', 'dog', 'owl'" in message
    assert "'zebra'" in message if change == "renamed" else "'ant'" in message


def test_settings_are_those_of_data_alone(made):
    *_, child = made
    assert "name them with --data" in refused("verify", child, "--set", "data.missing=accept")
    wrong = ("verify", child, "--data", "digits", "--set", "seed=3")
    assert "verify takes keys of the section data alone" in refused(*wrong)


def forged(child: Path, name: str, array: np.ndarray) -> None:
    """Put an array in the place of a file, with its hash, as a stranger could."""
    np.save(child / name, array)
    said = manifest(child)
    said["sha256"][name] = sha256_of(child / name)
    (child / "manifest.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:, :19], "not rows of 20 bytes"),
        (lambda rows: rows[:0], "not rows of 20 bytes"),
        (lambda rows: rows.reshape(-1), "not rows of 20 bytes"),
        (lambda rows: rows[1:], "tell of"),
        (lambda rows: rows.astype(np.int64), "is no array of uint8"),
        (lambda rows: np.where(np.arange(20) == 19, 255, rows).astype(np.uint8), "has a label"),
        (lambda rows: rows[::-1], "test_sha256: the manifest says"),
    ],
)
def test_hostile_lists_of_images_are_refused(copies, change, said):
    *_, child = copies
    forged(child, "test_data/images.npy", change(np.load(child / "test_data/images.npy")))
    assert said in refused("verify", child)


def test_a_list_that_is_gone_or_not_in_the_manifest_is_refused(copies):
    *_, child = copies
    said = manifest(child)
    (child / "manifest.json").write_text(json.dumps({k: said[k] for k in said if k != "images"}))
    assert "sha256 lacks, or names beyond" in refused("verify", child)
    (child / "manifest.json").write_text(json.dumps(said))
    (child / "test_data/seen.npy").unlink()
    assert "seen.npy is missing" in refused("verify", child)


def test_an_older_export_is_scored_on_todays_split_and_that_is_said(copies):
    images, _, child = copies
    said = manifest(child)
    for name in ("test_data/images.npy", "test_data/seen.npy"):
        (child / name).unlink()
        del said["sha256"][name]
    for key in ("images", "seed", "statistics", "test_sha256"):
        del said[key]
    (child / "manifest.json").write_text(json.dumps(said))
    result = cli("verify", child, "--data", images)
    assert result.exit_code == 0, result.stderr
    assert "before exports told which images were test images" in result.stderr


def test_names_of_another_run_are_not_given_to_answers(copies, tmp_path):
    _, run, _ = copies
    record = json.loads((run / "network.json").read_text())
    record["labels"] = ["cat", "dog", "pig"]
    (run / "network.json").write_text(json.dumps(record))
    message = refused("export", run, "--genotype", "smallest", "--out", tmp_path / "c")
    assert "tells of other classes" in message
    assert not (tmp_path / "c").exists()


ENDS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("end", ENDS)
def test_labels_have_one_line_a_class_whatever_the_names(end):
    names = [f"\ufeffa{end}b", end, "", f"{end}c", f"d{end}", "\udcff"]
    text = label_lines(names)
    assert len(text.splitlines()) == len(text.split("\n")) - 1 == len(names)
    assert text.encode().decode("utf-8-sig") == text


def test_the_picture_says_what_its_images_are(made, tmp_path):
    from elastic_nas.pictures import _caption

    _, run, _ = made
    assert _caption(RunFolder(run)).endswith("test images")
    points = [Point(1.0, 0.5), Point(2.0, 0.75)]
    shown = {"device": DEVICE, "n": 18, "points": points}
    _, svg = plot_front(tmp_path / "front", caption="84 train\nleft out: hidden 3", **shown)
    assert svg.stat().st_size
