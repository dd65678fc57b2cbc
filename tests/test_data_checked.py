"""The check of a folder's files: done once, and known while they stay as they are."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from elastic_nas.config import DataConfig
from elastic_nas.data import checked, seen
from elastic_nas.data.checked import check_files
from elastic_nas.data.identity import identity_of
from elastic_nas.data.images import Examined, Reading, examine
from elastic_nas.errors import DataError
from elastic_nas.files import user_folder, writing


@pytest.fixture
def looked(monkeypatch):
    """Names of the files that are decoded; files are at rest at once."""
    names = []
    real = checked._look

    def look(path, reading, decode):
        names.append(path.name)
        return real(path, reading, decode)

    monkeypatch.setattr(checked, "_look", look)
    monkeypatch.setattr(seen, "AT_REST_S", -1.0)
    return names


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root, count=6):
    for number in range(count):
        save(root / f"{number}.png", number)
    return [f"{number}.png" for number in range(count)]


def check(root, names, **data):
    return check_files(root, {"all": names}, DataConfig(**data))


def kept_file():
    (place,) = (user_folder() / "checked").glob("*.checked")
    return place


def test_a_second_check_decodes_nothing_and_finds_the_same(tmp_path, looked):
    names = folder(tmp_path)
    first = check(tmp_path, names)
    assert sorted(looked) == names
    again = check(tmp_path, names)
    assert sorted(looked) == names
    assert again.seen == first.seen
    content = (tmp_path / "3.png").read_bytes()
    assert first.seen["3.png"].identity == identity_of(content)
    assert first.seen["3.png"].examined == examine(content)
    part = again.part(names, [0, 0, 0, 1, 1, 1])
    assert part.images.identities[3].tobytes() == identity_of(content)
    assert part.pixels_NB[3].tobytes() == examine(content).pixels


def test_changed_new_and_swapped_files_are_decoded_again(tmp_path, looked):
    names = folder(tmp_path)
    check(tmp_path, names)
    looked.clear()
    times = (tmp_path / "1.png").stat()
    save(tmp_path / "1.png", 50)
    os.utime(tmp_path / "1.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    save(tmp_path / "new.png", 51)
    found = check(tmp_path, [*names, "new.png"])
    assert sorted(looked) == ["1.png", "new.png"]
    assert found.seen["1.png"].identity == identity_of((tmp_path / "1.png").read_bytes())


def test_what_was_just_written_is_not_known_by_its_times(tmp_path, looked, monkeypatch):
    monkeypatch.setattr(seen, "AT_REST_S", 60.0)
    names = folder(tmp_path)
    check(tmp_path, names)
    check(tmp_path, names)
    assert len(looked) == 2 * len(names)


@pytest.mark.parametrize("content", [b"", b"junk\njunk", None])
def test_a_damaged_file_of_what_was_seen_is_made_again(tmp_path, looked, content):
    names = folder(tmp_path)
    before = check(tmp_path, names)
    whole = kept_file().read_bytes()
    kept_file().write_bytes(whole[:-3] if content is None else content)
    assert check(tmp_path, names).seen == before.seen
    assert len(looked) == 2 * len(names)
    assert kept_file().read_bytes() == whole


def test_other_rules_are_kept_apart(tmp_path, looked):
    names = folder(tmp_path)
    check(tmp_path, names)
    check(tmp_path, names, bits=12)
    assert len(looked) == 2 * len(names)
    assert seen.place_of(tmp_path, Reading()) != seen.place_of(tmp_path / "x", Reading())


def test_an_interrupted_check_goes_on_where_it_was(tmp_path, looked, monkeypatch):
    names = folder(tmp_path, 100)
    real = checked._look

    def interrupted(path, reading, decode):
        if path.name == "90.png":
            raise KeyboardInterrupt
        return real(path, reading, decode)

    monkeypatch.setattr(checked, "_look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check(tmp_path, names)
    monkeypatch.setattr(checked, "_look", real)
    looked.clear()
    check(tmp_path, names)
    assert len(looked) == 36  # 64 were found before


def test_a_per_user_folder_that_cannot_be_written_is_no_error(tmp_path, looked, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "file"))
    names = folder(tmp_path / "images")
    assert check(tmp_path / "images", names).unreadable == 0
    assert len(looked) == len(names)


def test_a_second_process_waits_and_decodes_nothing(tmp_path, looked, capsys):
    names = folder(tmp_path)
    place = seen.place_of(tmp_path, Reading())
    found = []
    with writing(place):
        other = threading.Thread(target=lambda: found.append(check(tmp_path, names)))
        other.start()
        while "Waiting" not in capsys.readouterr().err:
            other.join(0.01)
        everything = {
            name: checked._look(tmp_path / name, reading=Reading(), decode=True) for name in names
        }
        seen.save_seen(place, everything)
        looked.clear()
    other.join(60)
    assert found[0].seen == everything
    assert not looked


def test_up_to_one_per_cent_of_a_part_is_left_out_and_told(tmp_path, looked, capsys):
    names = folder(tmp_path, 100)
    (tmp_path / "7.png").write_bytes(b"junk")
    found = check(tmp_path, names)
    assert found.left_out == {"unreadable": 1}
    part = found.part(names, [0] * 100)
    assert len(part.labels) == len(part.images.names) == len(part.pixels_NB) == 99
    assert "7.png" not in part.images.names
    said = capsys.readouterr().err
    assert "1 of 100 images" in said
    assert "'7.png': it is no image of a known format\nThey are left out" in said
    save(tmp_path / "7.png", 7)  # what was damaged is always looked at again
    assert check(tmp_path, names).unreadable == 0


def test_more_is_refused_and_no_setting_is_named_that_does_not_help(tmp_path, looked):
    names = folder(tmp_path, 100)
    for number in (7, 8):
        (tmp_path / f"{number}.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"no setting of .* takes them") as caught:
        check(tmp_path, names)
    assert "data.damaged=skip" not in str(caught.value)
    parts = {"train": names[10:], "test": names[:10]}
    save(tmp_path / "8.png", 8)
    with pytest.raises(DataError, match="which is 0 of 10 test images"):
        check_files(tmp_path, parts, DataConfig())


def test_stop_takes_none_and_names_the_other_way(tmp_path, looked):
    names = folder(tmp_path, 100)
    (tmp_path / "7.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"Delete or replace them.*--set data\.damaged=skip"):
        check(tmp_path, names, damaged="stop")


def test_of_a_larger_folder_only_bytes_are_known(tmp_path, looked, monkeypatch):
    monkeypatch.setattr(checked, "CHECKED_UP_TO", 5)
    names = folder(tmp_path)
    (tmp_path / "2.png").write_bytes(b"junk")
    found = check(tmp_path, names)
    assert found.unreadable == 0
    part = found.part(names, [0] * 6)
    assert part.pixels_NB is None
    assert part.images.identities[2].tobytes() == identity_of(b"junk")
    check(tmp_path, names)
    assert len(looked) == 6
    monkeypatch.setattr(checked, "CHECKED_UP_TO", 6)
    with pytest.raises(DataError, match="1 of 6"):
        check(tmp_path, names)
    assert len(looked) == 12


def test_what_was_open_is_examined_again_as_it_was_settled(tmp_path, looked, monkeypatch):
    """And is known as such where the run's record names what was settled."""
    names = folder(tmp_path)

    def examined(content, reading):
        if content == (tmp_path / "2.png").read_bytes() and reading.bits is None:
            return Examined(open="bits", peak=4095)
        return examine(content)

    monkeypatch.setattr(checked, "examine", examined)
    monkeypatch.setattr(checked, "settled", lambda found, given, place: Reading(bits=12))
    found = check(tmp_path, names)
    assert looked.count("2.png") == 2
    assert len(looked) == len(names) + 1
    assert found.reading == found.part(names, [0] * 6).images.reading == Reading(bits=12)
    assert found.seen["2.png"].examined.pixels
    check(tmp_path, names, bits=12)
    assert len(looked) == len(names) + 1
