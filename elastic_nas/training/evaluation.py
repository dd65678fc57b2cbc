"""Children judged on real images: slice, calibrate, evaluate, on cached data."""

import hashlib
import itertools
import json
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elastic_nas.data.dataset import Dataset, Split
from elastic_nas.genotype import Genotype
from elastic_nas.network import Network
from elastic_nas.nn.child import Child
from elastic_nas.nn.supernet import Supernet
from elastic_nas.training.calibration import calibrate
from elastic_nas.training.distributed import ALONE, Ranks
from elastic_nas.training.step import normalise

BATCH = 256


class Judge:
    """Slices, calibrates and evaluates children of one supernet, always on the same images.

    Args:
        network: The description.
        supernet: The trained weights.
        data: Calibration draws on its training split, candidates are judged on its
            search-validation split; both through the deployed preprocessing.
        calibration_images: Number of training images, a fixed random choice.
        validation_images: At most so many search-validation images.
        device: Where to compute.
        ranks: The processes that share the work: each takes every so-manieth batch, and all get
            what one alone would get.
    """

    def __init__(
        self,
        network: Network,
        supernet: Supernet,
        data: Dataset,
        *,
        calibration_images: int,
        validation_images: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self._network, self._data, self._device, self._ranks = network, data, device, ranks
        self._supernet = supernet.to(device)
        self._calibration = some(data.train, calibration_images)
        self._validation = some(data.validation, validation_images)

    @property
    def calibration(self) -> Split:
        """The training images that children are calibrated with; see `readable`."""
        return self.readable(self._calibration)

    @property
    def validation(self) -> Split:
        """The search-validation images that candidates are judged on; see `readable`."""
        return self.readable(self._validation)

    def readable(self, split: Split, resolution: int | None = None) -> Split:
        """The split without the images that cannot be read, in all processes.

        Args:
            split: Of this data set; what is found is kept with it.
            resolution: That its images will be needed at; None: the largest.

        Raises:
            DataError: Too many of them cannot be read.
        """
        size = self._network.dims[0].choices[-1] if resolution is None else resolution
        if split.is_read:
            return self._data.readable(split, size)
        with self._ranks.together():
            return self._data.readable(split, size)

    def settings_hash(self, images: str) -> str:
        """Hash of all that calibration depends on, beside the weights; `images`: of those."""
        settings = [images, BATCH, self._data.preprocess.describe()]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def child(self, genotype: Genotype, calibration: Split | None = None) -> Child:
        """The child, sliced and calibrated, in evaluation mode."""
        child = self._supernet.slice(genotype).to(self._device)
        chosen = self._calibration if calibration is None else calibration
        split = self.readable(chosen, child.resolution)
        calibrate(child, (x for x, _ in self._batches(split, child.resolution)), self._ranks)
        return child

    def evaluate(self, genotype: Genotype) -> float:
        """Accuracy in 0-1 of the calibrated child on the search-validation split."""
        return self.accuracy(self.child(genotype), self._validation)

    def accuracy(self, child: Child, split: Split) -> float:
        """Share of right answers of a calibrated child on the images of a split; see `right`."""
        return float(self.right(child, split).mean())

    def right(self, child: Child, split: Split) -> NDArray[np.bool_]:
        """Which answers of a calibrated child are right: (n,) of bool.

        Of the images that can be read, see `readable`.
        """
        correct = self._network.task.correct
        split = self.readable(split, child.resolution)
        with torch.inference_mode():
            batches = self._batches(split, child.resolution)
            parts = [correct(child(x), labels).cpu() for x, labels in batches]
        own = torch.cat([torch.empty(0, dtype=torch.bool), *parts])
        queues = [torch.split(answers, BATCH) for answers in self._ranks.gather(own)]
        turns = itertools.zip_longest(*queues, fillvalue=own[:0])
        return torch.cat([part for turn in turns for part in turn]).numpy()

    def _batches(self, split: Split, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's normalised images and labels, through the deployed preprocessing."""
        preprocess, ranks = self._data.preprocess, self._ranks
        pixels = split.deployed(preprocess, resolution)
        for start in range(ranks.rank * BATCH, len(split), ranks.size * BATCH):
            x = torch.from_numpy(pixels[start : start + BATCH]).to(self._device)
            labels = torch.from_numpy(split.labels[start : start + BATCH]).to(self._device)
            yield normalise(x, preprocess.mean, preprocess.std), labels


def some(split: Split, n: int) -> Split:
    """`n` images of a split, always the same ones; all of it where it has no more."""
    if len(split) <= n:
        return split
    chosen = np.random.default_rng(0).choice(len(split), n, replace=False)
    return split.subset(np.sort(chosen))
