"""The one definition of resizing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from elastic_nas.data.preprocess import Preprocess
from elastic_nas.errors import DataError
from elastic_nas.nn.supernet import resize

torch.set_num_threads(1)

PLAIN = Preprocess((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def photo(width, height):
    """Smooth shapes with some noise."""
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 255, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = smooth + rng.integers(-20, 20, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [8, 32, 47, 100])
@pytest.mark.parametrize("resolution", [12, 16, 32, 48])
def test_it_resizes_as_the_supernet_does(size, resolution):
    image = photo(size, size)
    x_NCHW = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    ours_CHW = PLAIN.deploy(image, resolution).transpose(2, 0, 1).astype(float)
    theirs_CHW = resize(x_NCHW, resolution)[0].double().numpy()
    assert np.abs(ours_CHW - theirs_CHW).max() <= 1.5


@pytest.mark.parametrize("size", [(100, 100), (123, 77), (77, 123), (31, 200), (8, 8)])
@pytest.mark.parametrize("resolution", [16, 33, 64])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_it_is_a_resize_and_a_central_crop(size, resolution, crop):
    image, shorter = photo(*size), round(resolution / crop)
    width, height = (int(side * shorter / min(size)) for side in size)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    expected = whole.crop((left, top, left + resolution, top + resolution))
    pixels = Preprocess(PLAIN.mean, PLAIN.std, crop).deploy(image, resolution)
    assert pixels.shape == (resolution, resolution, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_the_crop_keeps_the_centre():
    image = Image.new("RGB", (200, 100), "black")
    image.paste((255, 255, 255), (50, 0, 150, 100))
    assert (PLAIN.deploy(image, 50)[:, 2:48] == 255).all()


def test_a_very_long_image_takes_no_memory():
    assert PLAIN.deploy(Image.new("RGB", (100_000, 1), "white"), 224).min() == 255


def test_the_description_travels_as_json_and_comes_back():
    cropped = Preprocess((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 0.875)
    description = json.loads(json.dumps(cropped.describe()))
    assert Preprocess.from_description(description) == cropped
    assert description["filter"] == "bilinear"
    assert description["antialias"] is True
    assert description["input_range"] == [0, 255]
    assert description["colour"] == "RGB"
    assert description["layout"] == "NCHW"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filter": "nearest"}, "filter 'nearest' is not supported; it must be 'bilinear'"),
        ({"colour": "BGR"}, "colour 'BGR'"),
        ({"surplus": 1}, "does not know surplus"),
        ({"crop": 1.5}, r"crop .* at most 1, got 1\.5"),
        ({"crop": True}, "crop .* got True"),
        ({"crop": float("nan")}, "crop .* got nan"),
        ({"mean": [0.5, 0.5]}, "mean .* 3 numbers"),
        ({"mean": [0.5, 0.5, "0.5"]}, "mean .* 3 numbers"),
        ({"mean": [0.5, 0.5, 127]}, "mean .* 0 to 1"),
        ({"std": [0.5, 0.5, 0]}, "std .* positive"),
        ({"std": 1}, "std .* positive"),
    ],
)
def test_a_foreign_description_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        Preprocess.from_description({**PLAIN.describe(), **change})


def test_a_missing_key_and_a_non_mapping_are_refused():
    description = PLAIN.describe()
    del description["antialias"]
    with pytest.raises(DataError, match="lacks or does not know antialias"):
        Preprocess.from_description(description)
    with pytest.raises(DataError, match="must be a mapping"):
        Preprocess.from_description([])
