"""Parts or classes: told by the names of folders, and never guessed where both may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.config import DataConfig
from elastic_nas.data.class_names import alike, check_class_names
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.layout import ALL, parts_of
from elastic_nas.data.part_words import is_fold, part_of
from elastic_nas.data.told import table
from elastic_nas.errors import DataError
from tests.test_data_folder import classes, save

WORDS = {
    "train": "train Training TRAIN trn trainset train_set training_data train-images images_train "
             "X_train imgsTrain Xtrain trainA trainval train.v1 train2017 seg_train 01_train "
             "train_01 TrainSet",
    "val": "val valid Validation VALIDATION dev devel val2017 valid_set validset eval dev_images",
    "test": "hold-out te test_copy test Testing TEST tst testset test_images X_test holdout test1 "
            "seg_test",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for part, names in WORDS.items() for name in names.split()]
)
def test_the_words_that_people_use_name_parts(name, part):
    assert part_of(name) == part
    assert not is_fold(name)


@pytest.mark.parametrize(
    "name",
    ["bus", "trainer", "testosterone", "validity", "devon", "train station", "contest", "latest",
     "train_test", "tests_of_time", "", "123", "sets", "images", "Évaluation-x"],
)  # fmt: skip
def test_other_words_do_not(name):
    assert part_of(name) is None


@pytest.mark.parametrize(
    "name", ["fold1", "fold_2", "Fold-03", "cv3", "split0", "KFold 4", "fold-1-of-5", "Fold A"]
)
def test_folds_are_known(name):
    assert is_fold(name)
    assert part_of(name) is None


@given(st.text(max_size=30))
def test_any_name_has_one_meaning_or_none(name):
    assert part_of(name) in (None, "train", "val", "test")
    assert not (is_fold(name) and part_of(name))
    assert part_of(f"{name} ") == part_of(name)


def tree(root, *folders):
    for folder in folders:
        for number in range(3):
            save(root / folder / f"{number}.png")
    return root


PARTED = [
    ("Training/a Training/b Testing/a Testing/b", {"train": ["Training"], "test": ["Testing"]}),
    ("train_set/a train_set/b valid/a valid/b test_set/a",
     {"train": ["train_set"], "val": ["valid"], "test": ["test_set"]}),
    ("seg_train/a seg_train/b seg_test/a seg_test/b",
     {"train": ["seg_train"], "test": ["seg_test"]}),
]  # fmt: skip


@pytest.mark.parametrize(("folders", "parts"), PARTED)
def test_parts_of_any_spelling(tmp_path, folders, parts):
    root = tree(tmp_path, *folders.split())
    found = parts_of(root, DataConfig(source=str(root)))
    assert {part: [path.name for path in paths] for part, paths in found.items()} == parts
    assert load_dataset(str(root)).labels == ("a", "b")


@pytest.mark.parametrize(
    "folders",
    ["bus car train", "train bus/day bus/night car", "bullet_train steam_train", "test bus",
     "cat/close cat/far dog/close", "a/a b/b", "validity devon"],
)  # fmt: skip
def test_what_are_classes(tmp_path, folders):
    root = tree(tmp_path, *folders.split())
    assert parts_of(root, DataConfig(source=str(root))) == {ALL: [root]}


OPEN = [
    ("train_images test_images", ["without class folders in 'test_images' and 'train_images'"]),
    ("train/a train/b test/a test/b extra/a", ["beside 'extra'", "train:train"]),
    ("train test bus", ["beside 'bus'"]),
    ("fold1/a fold1/b fold2/a fold2/b fold3/a fold3/b",
     ["data.parts=train:fold1,train:fold2,test:fold3"]),
    ("cat dog pics/cat pics/dog", ["unpacked into itself", "pics' as the source"]),
    ("cat/train cat/test dog/train dog/test", ["folders for parts", "within a class"]),
    ("train/a train/b val/a val/b valid/a valid/b", ["several name one part", "val:valid"]),
    ("train/images train/labels test/images test/labels", ["detection"]),
    ("images labels", ["detection"]),
    ("train/a train/b test/c test/d", ["holds other folders", "data.parts=train:train"]),
    ("test/a test/b val/a val/b", ["no folder 'train'"]),
    ("trainA trainB testA testB", ["look like parts"]),
    ("fold1/a fold1/b fold2/a fold2/b test/a test/b",
     ["data.parts=train:fold1,train:fold2,test:test"]),
    ("cat/close cat/far dog/close dog/far", ["all hold folders of the same", "train:cat,test:dog"]),
    ("0/a 0/b 1/a 1/b", ["train:0,test:1"]),
    ("a/images a/masks b/images b/masks", ["detection or segmentation"]),
    ("val/a val/b a b", ["looks like a part", "into a folder 'train'"]),
    ("val/a val/b test/a test/b labels/a labels/b", ["beside 'labels'"]),
]  # fmt: skip


@pytest.mark.parametrize(("folders", "words"), OPEN)
def test_two_readings_end_with_both_and_an_option(tmp_path, folders, words):
    root = tree(tmp_path, *folders.split())
    with pytest.raises(DataError) as caught:
        load_dataset(str(root))
    for word in [*words, "data.parts=none"]:
        assert word in str(caught.value)
    none = DataConfig(source=str(root), parts="none")
    assert len(load_dataset(none).labels) == len({name.split("/")[0] for name in folders.split()})


def test_a_folder_around_the_data_is_named(tmp_path):
    tree(tmp_path, "photos/cat", "photos/dog")
    with pytest.raises(DataError, match=r"one folder alone, 'photos'.*photos': use that"):
        load_dataset(str(tmp_path))


def test_folders_around_folders_are_named(tmp_path):
    tree(tmp_path / "twice", "pics/pics/cat", "pics/pics/dog")
    with pytest.raises(DataError, match=r"pics/pics': use that as the source"):
        load_dataset(str(tmp_path / "twice"))
    names = [f"{part}/{part}/{name}" for part in ("train", "test") for name in ("cat", "dog")]
    with pytest.raises(DataError, match=r"one folder alone(?s:.*)train:train/train"):
        load_dataset(str(tree(tmp_path / "doubled", *names)))


def test_an_empty_part_and_parts_beside_what_is_no_image(tmp_path):
    root = tree(tmp_path / "empty", "train/a", "train/b")
    (root / "test").mkdir()
    with pytest.raises(DataError, match=r"data\.parts=train:train\n"):
        load_dataset(str(root))
    root = tree(tmp_path / "beside", "train/a", "train/b")
    (root / "annotations").mkdir()
    (root / "annotations" / "x.json").touch()
    with pytest.raises(DataError, match=r"beside 'annotations'"):
        load_dataset(str(root))


def test_a_class_of_files_that_are_not_read_says_what_is_there(tmp_path):
    root = tree(tmp_path, "a", "b")
    for number in range(4):
        (root / "c").mkdir(exist_ok=True)
        (root / "c" / f"{number}.psd").touch()
    with pytest.raises(DataError, match=r"c' has no images. It has .psd 4, which are not read"):
        load_dataset(str(root))


def test_parts_outside_of_the_source_are_refused(tmp_path):
    root = tree(tmp_path, "a", "b")
    for name in ("../x", "/x"):
        with pytest.raises(DataError, match="outside of"):
            load_dataset(DataConfig(source=str(root), parts=f"train:{name}"))


def test_parts_that_are_named_are_taken(tmp_path):
    root = tree(tmp_path, *(f"fold{n}/{name}" for n in (1, 2, 3) for name in "ab"))
    parts = "train:fold1,train:fold2,test:fold3"
    data = load_dataset(DataConfig(source=str(root), parts=parts))
    assert [len(data.train) + len(data.validation), len(data.test)] == [12, 6]
    for wrong, word in (
        ("train:fold1,test:fold9", "did you mean"),
        ("test:fold1", "no folder for"),
    ):
        with pytest.raises(DataError, match=word):
            load_dataset(DataConfig(source=str(root), parts=wrong))


def test_a_class_without_test_images_is_allowed_and_said(tmp_path):
    root = tree(tmp_path, "train/a", "train/b", "train/rare", "test/a", "test/b")
    for _ in range(2):
        data = load_dataset(str(root))
        assert data.labels == ("a", "b", "rare")
        assert "without test images: 'rare'" in table(data)
        (root / "test" / "rare").mkdir(exist_ok=True)


def test_what_is_passed_over_is_counted_by_kind(tmp_path, capsys):
    root = classes(tmp_path, {"cat": 4, "dog": 4})
    for number in range(5):
        save(root / "cat" / "@eaDir" / f"{number}.png" / "THUMB.jpg")
    for name in ("cat/.x.png", "cat/Thumbs.db", "dog/a.txt", "dog/b.txt", "x.png", "README"):
        (root / name).touch()
    (root / "__MACOSX").mkdir()
    left_out = load_dataset(str(root)).record.head.left_out
    assert left_out == {
        "thumbnail folders": 1, "hidden": 1, "made by systems": 2, ".txt": 2,
        "images outside of class folders": 1, "without an ending": 1,
    }  # fmt: skip
    assert ".txt 2" in capsys.readouterr().err


def test_the_table_fits_a_terminal(tmp_path):
    root = tree(tmp_path, *(f"{'long ' * 20}{number}" for number in range(12)))
    lines = table(load_dataset(str(root))).splitlines()
    assert max(map(len, lines)) <= 80
    assert "  and 2 more classes" in lines


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["Cat", "cat"], "differ only by case"),
        (["caf\u00e9", "cafe\u0301"], r"cafe\\u0301"),
        (["a\u2028b", "c"], "control characters"),
        (["\ufeffa", "c"], "byte order mark"),
        ([" ", "c"], "spaces alone"),
        (["a ", "c"], "spaces at an end"),
        (["\udcff", "c"], "no text"),
    ],
)
def test_names_that_are_no_text_or_cannot_be_told_apart(names, word):
    with pytest.raises(DataError, match=word):
        check_class_names(names, "here")


def test_a_class_that_differs_by_case_between_parts_is_shown(tmp_path):
    root = tree(tmp_path, "train/a", "train/B", "test/a", "test/b")
    with pytest.raises(DataError, match=r"'b' .* is in test but not in train.* called 'B'"):
        load_dataset(str(root))


@given(st.text(min_size=1, max_size=10))
def test_names_are_alike_in_any_case_and_form(name):
    assert alike(alike(name)) == alike(name)
    check_class_names(["x1", "x2"], "here")


def test_folds_of_parts_and_parts_within_given_ones(tmp_path):
    names = [f"fold{n}/{part}/{name}" for n in "12" for part in ("train", "test") for name in "ab"]
    root = tree(tmp_path, *names)
    with pytest.raises(DataError, match=r"with parts in each of them. Use one .*fold1'"):
        load_dataset(str(root))
    with pytest.raises(DataError, match="holds folders for parts itself"):
        load_dataset(DataConfig(source=str(root), parts="train:fold1,test:fold2"))


def test_parts_that_lie_in_each_other_are_refused(tmp_path):
    root = tree(tmp_path, "all/a", "all/b", "all/hold/a", "all/hold/b")
    with pytest.raises(DataError, match="names what is in 'all' twice"):
        load_dataset(DataConfig(source=str(root), parts="train:all,test:all/hold"))


def test_links_lead_to_no_other_class_and_not_nowhere(tmp_path):
    root = tree(tmp_path, "a", "b")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "other").symlink_to(root / "b")
    data = load_dataset(str(root))
    assert len(data.train) + len(data.validation) + len(data.test) == 6
    (root / "c").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"c' is a link that leads nowhere"):
        load_dataset(str(root))


def test_options_can_be_copied_into_a_shell(tmp_path):
    root = tree(tmp_path, "my train/a", "my train/b", "test/a", "test/b", "x")
    with pytest.raises(DataError, match=r"--set 'data.parts=train:my train,test:test'"):
        load_dataset(str(root))


def test_a_saved_data_set_is_told_from_a_folder(tmp_path):
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(DataError, match=f"name it as hf:{tmp_path}"):
        load_dataset(str(tmp_path))
