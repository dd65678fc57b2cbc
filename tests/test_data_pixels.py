"""Pixels keep their meaning: bits, bands, and files whose pixels end early."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elastic_nas.data.images import examine, read_image
from elastic_nas.data.pixels import Reading, settled
from elastic_nas.data.whole import _gif_is_short, _lzw_pixels
from elastic_nas.errors import DataError


def packed(image, kind, **options):
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def deep(peak, kind="PNG", dtype=np.uint16):
    values = np.linspace(0, peak, 64).astype(dtype)[None].repeat(8, 0)
    return packed(Image.fromarray(values), kind)


def levels(content, reading):
    return np.unique(np.asarray(read_image("x", content, reading)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("peak", "bits"), [(1023, 10), (4095, 12), (16383, 14), (255, 8)])
def test_fewer_bits_than_stored_are_asked_for_and_scaled(kind, peak, bits):
    content = deep(peak, kind)
    with pytest.raises(DataError, match=rf"data\.bits={bits} \(white is {peak:,}\), or .*bits=16"):
        read_image("x", content)
    found = examine(content)
    assert (found.open, found.peak, found.damage) == ("bits", peak, "")
    grey = levels(content, Reading(bits=bits))
    assert (grey[0], grey[-1], len(grey)) == (0, 255, 64)
    assert levels(content, Reading(bits=16))[-1] == round(peak / 257)


def test_all_16_bits_need_no_answer():
    content = deep(40000)
    assert levels(content, Reading())[-1] == round(40000 / 257)
    with pytest.raises(DataError, match="value 40,000, and 12 bits end at 4,095"):
        read_image("x", content, Reading(bits=12))


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 16), st.lists(st.integers(0, 65535), min_size=4, max_size=4))
def test_values_are_scaled_to_the_nearest(bits, values):
    values = [value & ((1 << bits) - 1) for value in values]
    content = packed(Image.fromarray(np.array([values], np.uint16)), "PNG")
    grey = np.asarray(read_image("x", content, Reading(bits=bits)))[0, :, 0]
    exact = np.array(values) * 255 / ((1 << bits) - 1)
    assert np.abs(grey - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("peak", [255, 4095, 70_000])
def test_32_bits_are_never_guessed(peak):
    content = deep(peak, "TIFF", np.int32)
    with pytest.raises(DataError, match=r"data\.bits=(8|12)|more than 16 bits"):
        read_image("x", content)
    assert examine(content).open == "values"
    if peak == 255:
        assert levels(content, Reading(bits=8)).tolist()[-1] == 255
    negative = packed(Image.fromarray(np.full((4, 4), -3, np.int32)), "TIFF")
    with pytest.raises(DataError, match="values down to -3"):
        read_image("x", negative)


def test_a_tiff_file_may_say_its_bits():
    content = packed(
        Image.fromarray(np.full((4, 4), 4095, np.uint16)), "TIFF", tiffinfo={281: 4095}
    )
    assert levels(content, Reading()).tolist() == [255]


def test_portable_maps_say_their_white():
    rows = struct.pack(">8H", *([0, 4095] * 4))
    assert levels(b"P5 4 2 4095\n" + rows, Reading()).tolist() == [0, 255]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, width, height, depth=8, colour=2):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_colour_of_16_bits_a_channel_is_never_squeezed():
    row = b"\0" + struct.pack(">12H", *range(0, 4092, 341))
    content = png(row, 4, 1, 16)
    with pytest.raises(DataError, match=r"upper half is not used.*data\.bits=16"):
        read_image("x", content)
    with pytest.raises(DataError, match="in colour with 16 bits a channel"):
        read_image("x", content, Reading(bits=12))
    assert examine(content, Reading(bits=16)).damage == ""
    bright = png(b"\0" + struct.pack(">3H", 65535, 0, 257), 1, 1, 16)
    assert np.asarray(read_image("x", bright)).tolist() == [[[255, 0, 1]]]


def test_one_image_that_uses_all_bits_tells_it_of_the_set():
    dark, bright = examine(deep(900)), examine(deep(60000))
    pairs = [(image.open, image.peak) for image in (dark, bright)]
    many = [pairs[1]] * 100
    assert settled([pairs[0], *many], Reading(), "set") == Reading(bits=16)
    with pytest.raises(DataError, match=r"2 images of 'set' have .* 900, .*data\.bits=10"):
        settled([pairs[0], pairs[0]], Reading(), "set")
    assert settled([("", 0)], Reading(bits=12), "set") == Reading(bits=12)


def noise(bands):
    return np.random.default_rng(0).integers(1, 255, (6, 5, bands), dtype=np.uint8)


def near_infrared(extra=None):
    """A TIFF file of four bands, of which the last is opacity where `extra` is 1 or 2."""
    pixels = noise(4)
    pixels[0, 0, 3] = 255  # else no pixel would be opaque
    content = packed(Image.fromarray(pixels, "RGBA"), "TIFF")
    at = content.index(struct.pack("<HHI", 338, 3, 1))
    if extra is None:  # another tag, which nothing reads
        return content[:at] + struct.pack("<H", 340) + content[at + 2 :]
    return content[: at + 8] + struct.pack("<H", extra) + content[at + 10 :]


@pytest.mark.parametrize("extra", [None, 0])
def test_a_fourth_band_that_is_not_said_to_be_opacity_is_asked_for(extra):
    content = near_infrared(extra)
    with pytest.raises(DataError, match=r"data\.bands=rgb leaves it out"):
        read_image("x", content)
    assert examine(content).open == "bands"
    rgb = np.asarray(read_image("x", content, Reading(bands="rgb")))
    assert (rgb == noise(4)[..., :3]).all()
    if extra is None:
        assert (np.asarray(read_image("x", content, Reading(bands="rgba"))) != rgb).any()
    else:
        with pytest.raises(DataError, match="marked as no opacity"):
            read_image("x", content, Reading(bands="rgba"))


def test_a_fourth_band_that_is_said_to_be_opacity_is():
    assert examine(near_infrared(2)).open == ""


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_opacity_of_0_everywhere_is_asked_for(kind):
    pixels = noise(4)
    pixels[..., 3] = 0
    content = packed(Image.fromarray(pixels, "RGBA"), kind, **({"exact": True, "lossless": True}))
    assert examine(content).open == "bands"
    rgb = np.asarray(read_image("x", content, Reading(bands="rgb")))
    assert (rgb == pixels[..., :3]).all()
    blank = packed(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), kind)
    assert examine(blank).open == ""


def test_a_bitmap_of_32_bits_without_opacity():
    pixels = noise(4)
    pixels[..., 3] = 0
    raw = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, 5, 6, 1, 32, 3, len(raw), 0, 0, 0, 0)
    head = info + masks + bytes(108 - len(info) - len(masks))
    content = b"BM" + struct.pack("<IHHI", 14 + 108 + len(raw), 0, 0, 122) + head + raw
    assert examine(content).open == "bands"
    assert (np.asarray(read_image("x", content, Reading(bands="rgb"))) == pixels[..., :3]).all()


RGB = Image.fromarray(noise(3).repeat(6, 0).repeat(6, 1))
FORMATS = {
    "PNG": {}, "JPEG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}, "GIF": {}, "AVIF": {},
    "JPEG2000": {}, "PPM": {}, "MPO": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_ends_early_is_damaged_or_the_whole_picture(kind):
    content = packed(RGB, kind, **FORMATS[kind])
    whole = examine(content)
    assert whole.pixels
    for end in {*range(1, len(content), 1 + len(content) // 60), 212}:
        found = examine(content[:end])
        assert found.damage or found.pixels == whole.pixels, end


@pytest.mark.parametrize(("colour", "size"), [(2, 3), (0, 1), (6, 4)])
def test_a_png_with_fewer_rows_than_it_says_is_damaged(colour, size):
    rows = b"".join(b"\0" + bytes([200] * 10 * size) for _ in range(8))
    assert examine(png(rows, 10, 8, colour=colour)).damage == ""
    for count in (0, 1, 4, 7):
        short = png(rows[: count * (1 + 10 * size)], 10, 8, colour=colour)
        assert examine(short).damage, count
    black = b"".join(b"\0" + bytes(10 * size) for _ in range(8))
    assert examine(png(black, 10, 8, colour=colour)).damage == ""


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 256), st.booleans(), st.integers(0, 9)
)
def test_a_whole_gif_is_never_short(width, height, colours, interlaced, seed):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, colours, (height, width)).astype(np.uint8), "P")
    image.putpalette(list(range(256)) * 3)
    content = packed(image, "GIF", interlace=interlaced)
    assert not _gif_is_short(content)


def test_a_gif_whose_codes_end_early_is_damaged():
    content = packed(RGB.quantize(8), "GIF")
    image = content[: len(content) // 2]
    assert examine(image + b"\0;").damage


@pytest.mark.parametrize("suffix", ["jfif", "avif", "jp2", "ppm", "gif"])
def test_more_endings_are_read(tmp_path, suffix):
    from elastic_nas.data.dataset import load_dataset

    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(4):
            seed = [ord(name), number]
            pixels = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
            kind = {"jfif": "JPEG", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
            path = tmp_path / name / f"{number}.{suffix}"
            path.write_bytes(packed(Image.fromarray(pixels), kind))
    data = load_dataset(str(tmp_path))
    assert len(data.train) + len(data.validation) + len(data.test) == 8


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(60, 40), (61, 37), (200, 150)])
def test_a_jpeg_whose_codes_end_early_is_damaged(size, progressive):
    content = packed(RGB.resize(size), "JPEG", progressive=progressive)
    whole = examine(content)
    assert not whole.damage
    for share in (0.5, 0.6, 0.8, 0.95):
        cut = content[: int(len(content) * share)] + b"\xff\xd9"
        found = examine(cut)
        assert found.damage or found.pixels == whole.pixels, share


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_flat_jpeg_is_whole(mode):
    for progressive in (False, True):
        content = packed(Image.new(mode, (70, 50), 9), "JPEG", progressive=progressive)
        assert not examine(content).damage
        assert not examine(content + b"behind its end").damage


def test_a_png_with_other_pixels_than_were_written_is_damaged():
    rows = b"".join(b"\0" + bytes([9] * 30) for _ in range(8))
    content = bytearray(png(rows, 10, 8))
    at = content.index(b"IEND") - 8  # the checksum of the pixels
    content[at + 2] ^= 1
    assert examine(bytes(content)).damage == "its pixels are damaged"


def test_a_set_of_two_ranges_is_asked_for():
    pairs = [("bits", 4000)] * 5 + [("", 60000)] * 5
    with pytest.raises(DataError, match=r"of 10 images .* 5 have no value from 4,096 on.*bits=16"):
        settled(pairs, Reading(), "set")


def test_opacity_of_1_everywhere_is_asked_for():
    pixels = noise(4)
    pixels[..., 3] = 1
    assert examine(packed(Image.fromarray(pixels, "RGBA"), "PNG")).open == "bands"


def test_the_options_of_two_ranges_are_obeyed():
    pairs = [("", 4000)] * 5 + [("", 60000)] * 5
    assert settled(pairs, Reading(bits=16), "set") == Reading(bits=16)


def test_values_with_an_offset_are_asked_for_unless_the_set_is_wider():
    values = np.linspace(32568, 32968, 64).astype(np.uint16)[None].repeat(8, 0)
    content = packed(Image.fromarray(values), "PNG")
    with pytest.raises(DataError, match=r"in a narrow range, up to 32,968.*data\.bits=16"):
        read_image("x", content)
    pair = (examine(content).open, examine(content).peak)
    with pytest.raises(DataError, match="3 images of 'set' have values in a narrow range"):
        settled([pair] * 3, Reading(), "set")
    assert settled([pair, ("", 65535)], Reading(), "set") == Reading(bits=16)
    assert levels(content, Reading(bits=16)).tolist() == [127, 128]
    flat = packed(Image.fromarray(np.full((4, 4), 65535, np.uint16)), "PNG")
    assert levels(flat, Reading()).tolist() == [255]


def test_a_band_that_is_nowhere_opaque_is_asked_for():
    pixels = noise(4)
    pixels[..., 3] = pixels[..., 3] // 2
    assert examine(packed(Image.fromarray(pixels, "RGBA"), "PNG")).open == "bands"
    pixels[0, 0, 3] = 255
    assert examine(packed(Image.fromarray(pixels, "RGBA"), "PNG")).open == ""


def test_codes_of_a_gif_that_stand_for_nothing_are_not_followed_without_end():
    clears = sum(256 << 9 * place for place in range(8)).to_bytes(9, "little")
    assert _lzw_pixels(clears * 5_000_000, 8, 100) == 0
