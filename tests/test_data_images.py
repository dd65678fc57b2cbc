"""Reading image files."""

import os
import socket
import struct
import tempfile
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path
from re import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from elastic_nas.data import images
from elastic_nas.data.images import _quiet, find_damage, in_parallel, read_image, shrink
from elastic_nas.errors import DataError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def halves(mode="RGB", left=RED, right=BLUE, size=(16, 8)):
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def pixels_of(path):
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg", "webp", "bmp", "tif", "TIFF"])
def test_every_format_is_read(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    halves().save(path, **({"lossless": True} if suffix == "webp" else {}))
    pixels = pixels_of(path)
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels[4, 2] - RED).max() < 8
    assert np.abs(pixels[4, 13] - BLUE).max() < 8
    assert find_damage(path) is None


@pytest.mark.parametrize(
    ("mode", "left", "right", "expected"),
    [
        ("1", 1, 0, (WHITE, (0, 0, 0))),
        ("L", 200, 10, ((200,) * 3, (10,) * 3)),
        ("LA", (100, 255), (100, 0), ((100,) * 3, WHITE)),
        ("RGBA", (255, 0, 0, 255), (0, 0, 255, 0), (RED, WHITE)),
        ("RGBA", (255, 0, 0, 128), (0, 0, 255, 255), ((255, 127, 127), BLUE)),
    ],
)
def test_modes_of_png(tmp_path, mode, left, right, expected):
    path = tmp_path / "x.png"
    halves(mode, left, right).save(path)
    pixels = pixels_of(path)
    assert [tuple(pixels[4, 2]), tuple(pixels[4, 13])] == list(expected)


def test_palette_with_and_without_transparency(tmp_path):
    image = halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    image.save(tmp_path / "opaque.png")
    blue = image.getpixel((13, 4))
    image.save(tmp_path / "clear.png", transparency=bytes(0 if i == blue else 255 for i in (0, 1)))
    assert tuple(pixels_of(tmp_path / "opaque.png")[4, 13]) == BLUE
    clear = pixels_of(tmp_path / "clear.png")
    assert [tuple(clear[4, 2]), tuple(clear[4, 13])] == [RED, WHITE]


def test_cmyk(tmp_path):
    halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)).save(tmp_path / "x.jpg", quality=95)
    pixels = pixels_of(tmp_path / "x.jpg")
    assert np.abs(pixels[4, 2] - RED).max() < 8
    assert np.abs(pixels[4, 13] - BLUE).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]] * 2, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    assert pixels_of(tmp_path / f"x.{suffix}")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    upright = halves(size=(32, 16))
    upright.paste((0, 255, 0), (0, 0, 8, 8))
    turns = Image.Transpose
    stored = {  # how a camera stores what orientation then undoes
        1: [], 2: [turns.FLIP_LEFT_RIGHT], 3: [turns.ROTATE_180], 4: [turns.FLIP_TOP_BOTTOM],
        5: [turns.TRANSPOSE], 6: [turns.ROTATE_90], 7: [turns.TRANSVERSE], 8: [turns.ROTATE_270],
    }[orientation]  # fmt: skip
    image = upright
    for turn in stored:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0)
    pixels = pixels_of(tmp_path / "x.jpg")
    assert pixels.shape == (16, 32, 3)
    assert np.abs(pixels - np.asarray(upright).astype(int)).mean() < 4


def test_damaged_exif_does_not_hide_the_picture(tmp_path, monkeypatch):
    halves().save(tmp_path / "x.jpg", exif=b"Exif\0\0nonsense that is no TIFF header")
    assert pixels_of(tmp_path / "x.jpg").shape == (8, 16, 3)

    def refuse(image):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(ImageOps, "exif_transpose", refuse)  # as Pillow does for some damage
    assert pixels_of(tmp_path / "x.jpg").shape == (8, 16, 3)


def noise(size=(64, 64)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cut\.{suffix}.*Delete or replace"):
        read_image(path)
    assert find_damage(path)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name, reason in {
        "text.jpg": "no image of a known format",
        "empty.jpg": "no image of a known format",
        "folder.jpg": "it is a folder, not a file",
        "missing.jpg": "No such file",
        "float.tif": "floating-point",
    }.items():
        with pytest.raises(DataError, match=f"{name}.*{reason}"):
            read_image(tmp_path / name)
        assert reason in (find_damage(tmp_path / name) or "")


def test_bombs_are_refused_and_near_bombs_read_without_a_warning(tmp_path, monkeypatch):
    noise((10, 10)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # Pillow warns from 60, refuses from 120
    assert read_image(tmp_path / "x.png").size == (10, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(DataError, match=r"more than the 64,000,000 pixels .* scale it down"):
        read_image(tmp_path / "x.png")


def refused(path, reason):
    """Reading and checking say the same."""
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert reason in str(caught.value), str(caught.value)
    assert reason in (find_damage(path) or "")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(*chunks, size=(60, 40)):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


ROWS = zlib.compress(b"\0".ljust(181, b"x") * 40)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_of(size=(8000, 8001)), "it has 64,008,000 pixels, more than the 64,000,000"),
        (png_of(size=(2**31 - 1, 1)), "more than the 64,000,000 pixels"),
        (png_of(chunk(b"IDAT", ROWS[:8] + b"\xff" * 20 + ROWS[20:])), "broken data stream"),
        (
            png_of(
                chunk(b"IDAT", ROWS),
                chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3_000_000)),
            ),
            "too large",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "known format"),
        (b"II*\0\xff\xff\xff\xff", "known format"),
        (b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 100, "known format"),
    ],
)  # fmt: skip
def test_hostile_images_are_told_by_the_check_as_by_the_reader(tmp_path, content, reason):
    (tmp_path / "x.png").write_bytes(content)
    refused(tmp_path / "x.png", reason)
    with pytest.raises(DataError, match=reason):
        read_image("x", content)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jpg"))
    reasons = {"pipe": "a pipe", "zero": "a device", "loop": "symbolic links", "socket": "No such"}
    for name, reason in reasons.items():
        refused(tmp_path / f"{name}.jpg", reason)


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_BYTES", 1000)
    noise().save(tmp_path / "x.png")
    refused(tmp_path / "x.png", "more than 1,000 bytes")


def test_a_jpeg_file_of_very_many_scans_is_refused(tmp_path, monkeypatch):
    noise().save(tmp_path / "x.jpg", progressive=True)
    assert find_damage(tmp_path / "x.jpg") is None
    monkeypatch.setattr(images, "MOST_SCANNED", 5 * 64 * 64)
    refused(tmp_path / "x.jpg", "too many scans")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_check_agrees_with_the_reader_on_damaged_images(suffix, data):
    buffer = BytesIO()
    noise((24, 24)).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{suffix}"
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        damage = find_damage(path)
        told = nullcontext() if damage is None else pytest.raises(DataError, match=escape(damage))
        with told:
            read_image(path)


def test_threads_hold_so_many_pixels_at_once_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS_AT_ONCE", 3 * 64 * 64)
    monkeypatch.setattr(images.os, "cpu_count", lambda: 8)
    noise().save(tmp_path / "x.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    lock, held, most = threading.Lock(), [0], [0]

    def work(number):
        with suppress(DataError):
            read_image(tmp_path / ("junk.png" if number % 5 == 0 else "x.png"))
        read_image(tmp_path / "x.png")
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        time.sleep(0.001)
        with lock:
            held[0] -= 1

    in_parallel(work, range(100), "Reading")
    assert 2 <= most[0] <= 3
    assert images._room._used == 0


def test_an_image_beyond_the_bound_is_read_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS_AT_ONCE", 100)
    noise().save(tmp_path / "x.png")
    assert len(in_parallel(read_image, [tmp_path / "x.png"] * 20, "Reading")) == 20
    assert images._room._used == 0


def test_threads_leave_the_warning_filters_as_they_were(tmp_path):
    noise().save(tmp_path / "x.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [tmp_path / "x.png"] * 64))
    assert list(warnings.filters) == before


def test_warnings_stay_silent_until_the_last_reader_is_done():
    with _quiet:
        with _quiet:
            pass
        warnings.warn("still silent", stacklevel=1)
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_long_work_says_how_far_it_is(capsys):
    assert in_parallel(lambda n: n + 1, range(2000), "Counting")[-1] == 2000
    assert "Counting: 2000/2000" in capsys.readouterr().err
    in_parallel(lambda n: n, range(100), "Counting")
    assert not capsys.readouterr().err


def test_shrinking_bounds_the_shorter_side_and_never_enlarges():
    assert shrink(Image.new("RGB", (100, 50)), 20).size == (40, 20)
    assert shrink(Image.new("RGB", (50, 100)), 20).size == (20, 40)
    assert shrink(Image.new("RGB", (8, 9)), 20).size == (8, 9)
