"""Speed of checking the files of a folder: against decoding all of them once, and a second time.

    python tools/bench_reading.py --images 50000 --size 64 --rounds 2

Small JPEG files of noise and colour are made in a temporary folder and removed at the end. Each
round decodes all of them by `images.find_damage` in threads, which is what a check cost before
anything was hashed or kept; then checks them with an empty per-user folder; then checks them again.
Files are read once beforehand, so that all of them come from memory. Ratios are given by the clock
and by processor time, for which other work on the machine does not count.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import numpy as np
from PIL import Image

from elastic_nas.config import DataConfig
from elastic_nas.data import seen
from elastic_nas.data.checked import check_files
from elastic_nas.data.images import find_damage, in_parallel
from elastic_nas.files import user_folder

CLASSES = 10


def make(root: Path, count: int, size: int) -> list[str]:
    """Write JPEG files of this many pixels a side; their names."""
    rng = np.random.default_rng(0)
    names = [f"{number % CLASSES}/{number:06}.jpg" for number in range(count)]
    for number in range(CLASSES):
        (root / str(number)).mkdir()
    for name in names:
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(root / name, quality=90)
    return names


def timed(work: Callable[[], object]) -> np.ndarray:
    """Seconds that it takes: by the clock, and of processor time."""
    began = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - began


def main() -> None:
    """Print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ELASTIC_NAS_HOME"] = str(Path(folder) / "home")
        root = Path(folder) / "images"
        root.mkdir()
        names = make(root, given.images, given.size)
        paths = [root / name for name in names]
        in_parallel(Path.read_bytes, paths, "Reading")
        time.sleep(seen.AT_REST_S)
        for number in range(given.rounds):
            decoding = timed(lambda: in_parallel(find_damage, paths, "Decoding"))
            rmtree(user_folder(), ignore_errors=True)
            first, second = (
                timed(lambda: check_files(root, {"all": names}, DataConfig())) for _ in range(2)
            )
            print(
                f"round {number + 1}: {given.images:,} JPEG files of {given.size} px: decoding "
                f"{decoding[0]:.1f} s, first check {first[0]:.1f} s, second {second[0]:.2f} s; "
                f"check / decoding {first[0] / decoding[0]:.2f} by the clock, "
                f"{first[1] / decoding[1]:.2f} of processor time"
            )


if __name__ == "__main__":
    main()
