"""A run holds to its images: what happens to the folder afterwards changes no name and no side."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_shards import png, write_tar
from PIL import Image
from small_run import DEVICE, SPACE, cli, done, refused, table_of_here

from elastic_nas.api import open_run
from elastic_nas.data.record import SIDES, read_record
from elastic_nas.data.tied import check_same_classes
from elastic_nas.errors import ConfigError
from elastic_nas.network import Network
from elastic_nas.run_file import read_run_file
from elastic_nas.run_images import config_of, images_of
from elastic_nas.runs import RunFolder

CHILD = "smallest"
GENOTYPE = ",".join(map(str, Network(SPACE, 3).smallest))
CLASSES = ("cat", "dog", "fox")
LENGTH = ("--set", "train.steps=2")
SETTINGS = (
    "train.batch_size=8", "train.threads=1", "train.augment.strong=none",
    "search.calibration_images=32", "search.export_calibration_images=32",
)  # fmt: skip
FAST = (*(word for setting in SETTINGS for word in ("--set", setting)), *LENGTH)


def picture(path: Path, seed: int, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def class_folders(folder: Path, first: int = 0, each: int = 14) -> None:
    for label, name in enumerate(CLASSES):
        for number in range(each):
            picture(folder / name / f"{number:02}.png", first + 100 * label + number)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with images and a run that was trained on them; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    class_folders(folder / "pets")
    done("train", "--data", folder / "pets", "--space", SPACE, "--out", folder / "run", *FAST)
    return folder


class Case:
    """A copy of the images and of the run, which knows the images at the copy's place."""

    def __init__(self, made: Path, folder: Path) -> None:
        self.folder, self.pets, self.run = folder, folder / "pets", folder / "run"
        shutil.copytree(made / "pets", self.pets)
        shutil.copytree(made / "run", self.run)
        file = self.run / "run.yaml"
        file.write_text(file.read_text().replace(str(made / "pets"), str(self.pets)))
        self.record = read_record(self.run / "images.safetensors")

    def on(self, side: str) -> list[Path]:
        """The images that were on a side."""
        rows = np.flatnonzero(self.record.sides_N == SIDES.index(side))
        return [self.pets / self.record.names[row] for row in rows]

    def data(self, *changes: str):
        run = RunFolder(self.run)
        return images_of(run, config_of(run, list(changes)))

    def export(self, *words: object):
        return cli("export", self.run, "--genotype", GENOTYPE, "--out", self.out, *words)

    @property
    def out(self) -> Path:
        return self.folder / "child"

    def refused(self, *words: object) -> str:
        """What all commands that use the run's images say alike; returns the words of export."""
        text = refused("export", self.run, "--genotype", GENOTYPE, "--out", self.out, *words)
        assert not self.out.exists()
        return text

    def resumed(self, *words: object) -> tuple[object, ...]:
        return ("train", "--resume", "--out", self.run, *words, "--set", "train.steps=4")


@pytest.fixture
def case(made, tmp_path) -> Case:
    return Case(made, tmp_path)


def said(result) -> str:
    assert result.exit_code == 0, result.stderr
    return " ".join(result.stderr.split())


# --- classes --------------------------------------------------------------------------------------


def add_class(case):
    picture(case.pets / "ape" / "1.png", 7)
    picture(case.pets / "ape" / "2.png", 8)
    picture(case.pets / "ape" / "3.png", 9)


@pytest.mark.parametrize(
    ("change", "now"),
    [
        (add_class, "'ape', 'cat', 'dog', 'fox'"),
        (lambda case: shutil.rmtree(case.pets / "dog"), "'cat', 'fox'"),
        (lambda case: (case.pets / "fox").rename(case.pets / "bat"), "'bat', 'cat', 'dog'"),
    ],
)
def test_other_classes_are_refused_with_both_lists(case, change, now):
    change(case)
    texts = [
        case.refused(),
        refused(*case.resumed()),
        refused("train-child", case.run, "--genotype", CHILD, "--out", case.folder / "x"),
        refused("train", "--data", case.pets, "--space", SPACE, "--init", case.run, *FAST,
                "--out", case.folder / "x"),
    ]  # fmt: skip
    for text in texts:
        assert "3 classes ('cat', 'dog', 'fox')" in text
        assert f"now ({now})" in text
    assert not (case.folder / "x" / "run.yaml").exists()


# --- images ---------------------------------------------------------------------------------------


def test_new_images_are_left_out_and_counted(case):
    before = case.data()
    for number in range(40):
        picture(case.pets / "cat" / f"new-{number}.png", 900 + number, side=300)
    result = case.export()
    assert "40 images that" in said(result)
    assert "('cat/new-0.png', 'cat/new-1.png', 'cat/new-10.png', and 37 more)" in said(result)
    after = case.data()
    assert after.preprocess == before.preprocess  # no crop, though most are large now
    assert after.test.sha256 == before.test.sha256
    written = json.loads((case.out / "manifest.json").read_text())
    assert written["preprocess"] == before.preprocess.describe()
    assert written["accuracy"]["n"] == len(before.test)


def test_no_image_that_was_trained_on_selects_or_tests_when_a_third_is_gone(case):
    trained = {path.read_bytes() for path in case.on("train")}
    for path in sorted(case.pets.rglob("*.png"))[::3]:
        path.unlink()
    text = case.refused()
    assert "train images" in text
    assert "--set data.missing=accept" in text
    data = case.data("data.missing=accept")
    for split in (data.validation, data.test):
        for row in split.rows:
            assert (case.pets / split.images.names[row]).read_bytes() not in trained
    result = case.export("--set", "data.missing=accept")
    assert f"{len(data.test)} test images" in said(result)
    manifest = json.loads((case.out / "manifest.json").read_text())
    assert manifest["accuracy"]["n"] == len(data.test) < len(case.on("test"))


def test_a_changed_image_counts_as_missing(case):
    picture(case.on("test")[0], 999)
    name = str(case.on("test")[0].relative_to(case.pets))
    assert f"1 changed ({name!r})" in case.refused()
    assert f"1 changed ({name!r})" in refused(*case.resumed())


def test_an_image_in_another_class_counts_as_missing(case):
    path = next(path for path in case.on("train") if path.parent.name == "cat")
    path.rename(case.pets / "dog" / "was-cat.png")
    assert f"1 moved to another class ('cat/{path.name}')" in case.refused()


def test_a_copied_test_image_is_no_training_image(case):
    path = case.on("test")[0]
    shutil.copy(path, path.with_name("copy.png"))
    before = case.data()
    assert "1 images that" in said(case.export())
    train = case.data().train
    assert all(train.images.names[row].rpartition("/")[2] != "copy.png" for row in train.rows)
    assert train.sha256 == before.train.sha256


def test_a_resumed_training_goes_on_without_missing_ones_only_if_told_and_forgets_it(case):
    case.on("train")[0].unlink()
    assert "data.missing=accept" in refused(*case.resumed())
    said(cli(*case.resumed("--set", "data.missing=accept")))
    assert read_run_file(case.run / "run.yaml").data.missing == "refuse"
    assert read_record(case.run / "images.safetensors").fingerprints == case.record.fingerprints
    case.refused()  # told again


def test_a_resumed_training_is_the_same_after_all_files_were_renamed(case, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(case.run, other)
    said(cli(*case.resumed()))
    for path in sorted(case.pets.rglob("*.png")):
        path.rename(path.with_name(f"{99 - int(path.stem)}-renamed.png"))
    said(cli("train", "--resume", "--out", other, "--set", "train.steps=4"))
    ends = [(folder / "supernet.safetensors").read_bytes() for folder in (case.run, other)]
    tensors = [end[8 + int.from_bytes(end[:8], "little") :] for end in ends]
    assert tensors[0] == tensors[1]


# --- places ---------------------------------------------------------------------------------------


def test_a_moved_folder_is_followed_and_written_down(case):
    moved = case.pets.rename(case.folder / "moved")
    text = refused(*case.resumed())
    assert f"elastic-nas train --resume --out {case.run} --data NEW" in text
    said(cli(*case.resumed("--data", moved)))
    assert read_run_file(case.run / "run.yaml").data.source == str(moved)
    said(case.export())


def test_a_finished_run_follows_its_images_too(case):
    moved = case.pets.rename(case.folder / "moved")
    text = said(cli("train", "--resume", "--out", case.run, "--data", moved))
    assert "nothing to do" in text
    assert f"names {moved} as the place of the images now" in text
    said(case.export())


def test_export_and_train_child_are_told_of_the_new_place(case):
    moved = case.pets.rename(case.folder / "moved")
    assert "--data NEW" in case.refused()
    said(case.export("--data", moved))
    child = ("train-child", case.run, "--genotype", CHILD, "--out", case.folder / "x", *LENGTH)
    assert "--data NEW" in refused(*child)
    said(cli(*child, "--data", moved))
    assert read_run_file(case.folder / "x" / "run.yaml").data.source == str(moved)


def test_another_data_set_in_its_place_is_refused(case):
    class_folders(case.folder / "others", first=5000)
    text = case.refused("--data", case.folder / "others")
    assert "none of the train and search-validation and test images" in text


@pytest.mark.parametrize("key", ["train.steps=3", "seed=1", "space=tiny", "statistics=imagenet"])
def test_only_what_is_no_fact_of_the_training_may_be_set(case, key):
    text = case.refused("--set", key)
    assert f"{key.partition('=')[0]} is a fact of the training" in text


def test_search_takes_a_new_place_and_accepts_missing_images(case):
    run = RunFolder(case.run)
    table_of_here(run.network).write(run.table(DEVICE))
    moved = case.pets.rename(case.folder / "moved")
    words = ("search", case.run, "--device", DEVICE, "--evaluations", 2)
    assert f"elastic-nas search {case.run} --device DEVICE --data NEW" in refused(*words)
    said(cli(*words, "--data", moved))
    known = run.history.read_text().splitlines()
    gone = case.on("search-validation")[0]
    (moved / gone.relative_to(case.pets)).unlink()
    assert "data.missing=accept" in refused(*words, "--data", moved)
    again = open_run(case.run).search(
        DEVICE, data=moved, settings=["data.missing=accept", "search.evaluations=2"]
    )
    assert again
    rows = run.history.read_text().splitlines()
    assert (len(known), len(rows)) == (2, 4)  # judged anew, by fewer images


def test_a_run_file_of_before_names_only_the_place(case):
    file = case.run / "run.yaml"
    fields = yaml.safe_load(file.read_text())
    fields["data"] = fields["data"]["source"]
    file.write_text(yaml.safe_dump(fields))
    said(case.export("--set", "data.missing=accept"))
    said(cli(*case.resumed("--set", "data.duplicates=keep")))
    written = read_run_file(file).data
    assert (written.source, written.duplicates) == (str(case.pets), "keep")


def test_classes_of_shards_in_another_order_are_refused(tmp_path):
    folder, run = tmp_path / "shards", tmp_path / "run"
    members = [
        member
        for n in range(42)
        for member in ((f"{n:03}.png", png(n, 8)), (f"{n:03}.cls", b"%d" % (n % 3)))
    ]
    write_tar(folder / "train-0.tar", members)
    (folder / "classes.txt").write_text("cat\ndog\nfox\n")
    done("train", "--data", folder, "--space", SPACE, "--out", run, *FAST)
    (folder / "classes.txt").write_text("dog\ncat\nfox\n")
    words = ("export", run, "--genotype", GENOTYPE, "--out", tmp_path / "child")
    assert "another order: number 0 was 'cat' and is 'dog' now" in refused(*words)
    assert "another order" in refused("train", "--resume", "--out", run)


def test_other_bits_than_the_weights_expect_are_refused(case):
    assert "was trained with data.bits: as the files say, which cannot become 12" in case.refused(
        "--set", "data.bits=12"
    )


# --- the record itself ----------------------------------------------------------------------------


def test_a_record_of_another_run_is_refused(case):
    class_folders(case.folder / "others", first=5000)
    other = case.folder / "other"
    done("train", "--data", case.folder / "others", "--space", SPACE, "--out", other, *FAST)
    shutil.copy(other / "images.safetensors", case.run)
    text = case.refused("--data", case.folder / "others")
    assert "on other images than images.safetensors of the run tells" in text
    assert "Restore that file" in text


def test_a_damaged_record_is_refused(case):
    file = case.run / "images.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    assert "images.safetensors is damaged" in case.refused()
    assert "images.safetensors is damaged" in refused(*case.resumed())


def test_a_record_of_other_classes_than_the_network_is_refused(case):
    file = case.run / "network.json"
    file.write_text(file.read_text().replace('"fox"', '"owl"'))
    assert "tells of other classes than" in case.refused()


def test_a_record_that_was_lost_is_made_good_by_the_weights(case):
    (case.run / "images.safetensors").unlink()
    text = said(case.export())
    assert "has no record" not in text  # the weights tell that these are the images
    shutil.rmtree(case.out)
    case.on("test")[0].unlink()
    assert "on other images than images.safetensors" in case.refused()


# --- trainings that begin with a run --------------------------------------------------------------


def test_a_child_has_the_sides_of_its_run(case):
    for number in range(9):
        picture(case.pets / "cat" / f"new-{number}.png", 900 + number, side=300)
    out = case.folder / "x"
    text = said(cli("train-child", case.run, "--genotype", CHILD, "--out", out, *LENGTH))
    assert "9 images that" in text
    found = read_record(out / "images.safetensors")
    assert found.fingerprints == case.record.fingerprints
    assert found.preprocess == case.record.preprocess


def test_a_training_with_more_images_keeps_the_sides_of_those_it_begins_with(case):
    bigger = case.folder / "bigger"
    shutil.copytree(case.pets, bigger)
    for name in CLASSES:
        for number in range(30):
            picture(
                bigger / name / f"a{number}.png",
                7000 + 100 * CLASSES.index(name) + number,
                side=300,
            )
    out = case.folder / "x"
    words = ("train", "--data", bigger, "--space", SPACE, "--init", case.run, "--out", out, *FAST)
    assert "90 others are new here" in said(cli(*words))
    found = read_record(out / "images.safetensors")
    sides = dict(zip(map(bytes, found.identities), found.sides_N, strict=True))
    for identity, side in zip(map(bytes, case.record.identities), case.record.sides_N, strict=True):
        assert sides[identity] == side
    assert found.preprocess == case.record.preprocess
    assert min(found.counts.values()) > max(6, *list(case.record.counts.values())[1:])


def test_a_training_that_begins_with_a_run_misses_its_images(case):
    fewer = case.folder / "fewer"
    shutil.copytree(case.pets, fewer)
    for path in case.on("test")[:2]:
        (fewer / path.relative_to(case.pets)).unlink()
    out = case.folder / "x"
    words = ("train", "--data", fewer, "--space", SPACE, "--init", case.run, "--out", out, *FAST)
    assert "data.missing=accept" in refused(*words)
    said(cli(*words, "--set", "data.missing=accept"))


def test_a_run_without_a_record_says_what_cannot_be_told(case, monkeypatch):
    (case.run / "images.safetensors").unlink()
    monkeypatch.setattr("elastic_nas.training.belongs.tells_images", lambda facts: False)
    assert "has no record of its images" in said(case.export())
    out = case.folder / "x"
    words = ("train", "--data", case.pets, "--space", SPACE, "--init", case.run, *FAST)
    assert "are search-validation or test images here cannot" in said(cli(*words, "--out", out))


# --- what is wrong with single images -------------------------------------------------------------


def test_new_images_that_nobody_can_read_are_left_out(case):
    """Twelve bits, opacity of nothing, no image at all: the run asks for none of them."""
    before = case.data()
    grey = np.linspace(0, 4095, 64).astype(np.uint16)[None].repeat(8, 0)
    Image.fromarray(grey).save(case.pets / "cat" / "deep.png")
    hidden = np.random.default_rng(1).integers(1, 255, (8, 8, 4), dtype=np.uint8)
    hidden[..., 3] = 0
    Image.fromarray(hidden, "RGBA").save(case.pets / "cat" / "hidden.png")
    for number in range(9):
        (case.pets / "dog" / f"empty-{number}.png").touch()
    result = case.export()
    assert "11 of 53 images" in said(result)
    after = case.data()
    assert [len(s) for s in (after.train, after.validation, after.test)] == [
        len(s) for s in (before.train, before.validation, before.test)
    ]
    assert cli(*case.resumed()).exit_code == 0


def test_a_class_that_was_emptied_has_lost_its_images(case):
    for path in (case.pets / "fox").iterdir():
        path.unlink()
    text = case.refused()
    assert "14 vanished" not in text
    assert "vanished" in text
    assert "data.missing=accept" in text
    result = case.export("--set", "data.missing=accept")
    assert result.exit_code == 0, result.stderr
    text = refused(*case.resumed("--set", "data.missing=accept"))
    assert "no training images of 'fox' are left" in text


def test_swapped_class_folders_are_no_missing_images(case):
    (case.pets / "cat").rename(case.pets / "x")
    (case.pets / "dog").rename(case.pets / "cat")
    (case.pets / "x").rename(case.pets / "dog")
    for words in ((), ("--set", "data.missing=accept")):
        assert "were swapped or renamed" in case.refused(*words)


def test_a_training_that_begins_with_other_classes_leads_on(case):
    (case.pets / "fox").rename(case.pets / "bat")
    words = ("train", "--data", case.pets, "--space", SPACE, "--init", case.run, *FAST)
    assert "or train without --init" in refused(*words, "--out", case.folder / "x")


def test_names_in_another_unicode_form_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match=r"'caf\\xe9' is spelt 'cafe\\u0301' now"):
        check_same_classes(("caf\u00e9", "x"), ("cafe\u0301", "x"), "run", "here")


def test_a_record_that_is_no_file_is_no_old_run(case):
    record = case.run / "images.safetensors"
    record.unlink()
    record.mkdir()
    assert "images.safetensors: it is a folder" in case.refused()


def test_a_training_that_begins_with_a_run_keeps_the_rules_for_its_own_images(case):
    for number in range(9):
        (case.pets / "dog" / f"empty-{number}.png").touch()
    words = ("train", "--data", case.pets, "--space", SPACE, "--init", case.run, *FAST)
    assert "9 of 51 images" in refused(*words, "--out", case.folder / "x")
