"""Validation in mid-training: the largest and the smallest child on held-out images."""

import copy
import math

import torch

from elastic_nas.training.evaluation import Judge
from elastic_nas.training.trainer import Trainer

CALIBRATION_IMAGES = 256
VALIDATION_IMAGES = 1000
MOST_JUDGED = 0.1
"""Images judged or calibrated with, of the images trained on meanwhile: each costs two forward
passes, where an image of a step costs four forward and backward; measured 3 % of the time."""


class Validation:
    """Judges both ends of the supernet, always on the same images.

    Args:
        trainer: Its supernet, or the average of its weights, is judged.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        averaged = trainer.average is not None
        self._supernet = copy.deepcopy(trainer.supernet) if averaged else trainer.supernet
        self._judge = Judge(
            trainer.network,
            self._supernet,
            trainer.data,
            calibration_images=CALIBRATION_IMAGES,
            validation_images=VALIDATION_IMAGES,
            device=trainer.device,
            ranks=trainer.ranks,
        )

        sizes = (
            (CALIBRATION_IMAGES, trainer.data.train),
            (VALIDATION_IMAGES, trainer.data.validation),
        )
        judged = sum(min(most, len(split)) for most, split in sizes)  # nothing is read for that
        self._judged = max(trainer.ranks.values(judged))  # processes may see unequal data

    def __call__(self) -> dict[str, float]:
        """Accuracy in 0-1 of both ends, calibrated, on search-validation images."""
        average, network = self._trainer.average, self._trainer.network
        if average is not None:
            with torch.no_grad():
                for name, parameter in self._supernet.named_parameters():
                    parameter.copy_(average.tensors[name])
        return {
            "largest_accuracy": self._judge.evaluate(network.largest),
            "smallest_accuracy": self._judge.evaluate(network.smallest),
        }

    @property
    def images(self) -> int:
        """How many images judge each end."""
        return len(self._judge.validation)

    def is_due(self, done: int) -> bool:
        """Whether `done` steps are a point to validate at: the last, and at most once an epoch."""
        config = self._trainer.config
        assert config.steps is not None
        if not config.validations:
            return False
        every = max(
            math.ceil(config.steps / config.validations),
            self._trainer.stream.steps_per_epoch,
            math.ceil(self._judged / MOST_JUDGED / config.batch_size),
        )
        left = config.steps - done
        return left == 0 or (done % every == 0 and left >= every / 2)
