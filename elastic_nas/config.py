"""The run file: frozen, documented, strict.

A run file is YAML; `run_file.py` reads and writes it. Unknown and duplicate keys are refused; every
value is checked for type and range. `train` writes the full file, defaults filled in, into the
run folder.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from elastic_nas.strict import Strict, Text

LENGTHS = ("epochs", "minutes", "steps")
"""Keys of the train section of which one says how long to train."""

Share = Annotated[float, Field(ge=0, lt=1)]
Images = Annotated[int, Field(ge=32, le=100_000_000)]
"""How many images are looked at, at most."""


class _Strict(Strict):
    """A section of the run file; what stands below a key is what it means."""

    model_config = ConfigDict(use_attribute_docstrings=True)


PARTS = ("train", "val", "test")
"""Parts that a source may come in."""
_PART = re.compile(rf"({'|'.join(PARTS)}):([^,:]+)")


def _parts(text: str) -> str:
    found = [_PART.fullmatch(word.strip()) for word in text.split(",")]
    if text not in ("auto", "none") and not all(found):
        raise ValueError(
            f"must be auto, none, or pairs such as train:Training,test:Testing, got {text!r:.80}"
        )
    return text


def _source(value: Any) -> Any:
    """A name alone is the source."""
    return {"source": value} if isinstance(value, str) else value


class DataConfig(_Strict):
    """Which images, and how they are read."""

    source: Text = "digits"
    """``digits``, a folder of class folders or tar shards, a data file, or ``hf:NAME``."""
    parts: Annotated[Text, AfterValidator(_parts)] = "auto"
    """``auto``: by the names of folders or shards; ``none``: all folders are classes; or pairs such
    as ``train:Training,test:Testing``, a part several times for several folders."""
    duplicates: Literal["drop", "keep"] = "drop"
    """Equal pictures on two sides or in two classes: ``drop`` leaves out what would deceive."""
    damaged: Literal["skip", "stop"] = "skip"
    """Images that cannot be read: ``skip`` leaves out up to 1 % of a part; ``stop`` takes none."""
    missing: Literal["refuse", "accept"] = "refuse"
    """What a run was trained on and is not there now: refused where it is too much, or accepted."""
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    """Of pixels that are stored in more than 8; null: where the files say so."""
    bands: Literal["rgb", "rgba"] | None = None
    """What four bands are: ``rgba`` with opacity, ``rgb`` and one to leave out; null: as the files
    say."""

    @property
    def given(self) -> dict[str, list[str]]:
        """Names of folders, shards or parts for each part, where the user gives them."""
        found: dict[str, list[str]] = {}
        for part, name in _PART.findall(self.parts):
            found.setdefault(part, []).append(name.strip())
        return found


class AugmentConfig(_Strict):
    """What happens to a training image before the supernet sees it."""

    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Smallest share of the image's area that a random crop keeps."""
    strong: Literal["none", "trivial", "auto_imagenet", "auto_cifar", "rand"] = "trivial"
    """Drawn per image: ``trivial`` (TrivialAugment), ``auto_imagenet`` or ``auto_cifar``
    (AutoAugment's policies), ``rand`` (RandAugment), or ``none``."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Of RandAugment's operations, of 30."""
    operations: Annotated[int, Field(gt=0, le=10)] = 2
    """RandAugment's operations an image."""
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Alpha of mixup's Beta distribution; 0: no mixup."""
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Alpha of cutmix's Beta distribution; 0: no cutmix; with mixup, one is drawn a batch."""


class GuardConfig(_Strict):
    """What happens when a training goes wrong: no number, a spike, a collapse to chance."""

    action: Literal["roll_back", "stop"] = "roll_back"
    """``roll_back``: to the last good checkpoint, with a lower rate; ``stop``: keep it and end."""
    spike: Annotated[float, Field(gt=1, le=1e9)] = 3.0
    """A loss counts as a spike from so many times its running mean."""
    rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The learning rate is multiplied by this at each roll-back."""
    most: Annotated[int, Field(ge=0, le=100)] = 3
    """Roll-backs before the training stops."""


class TrainConfig(_Strict):
    """How the supernet is trained: sandwich rule, in-place distillation."""

    epochs: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    """Length of the training in passes over the training split; or give `minutes` or `steps`."""
    minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Length in minutes; measured on the first steps and turned into a number of steps."""
    steps: Annotated[int, Field(gt=0, le=10**12)] | None = None
    """Length in optimiser steps; what `epochs` and `minutes` become in the written run file."""
    init: Text | None = None
    """A run to begin with the weights of: of the same space, or of its largest child alone."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Images a step, over all processes."""
    accumulate: Annotated[int, Field(gt=0, le=1024)] = 1
    """Parts that a process cuts its share of a batch into, to save memory; same children in all."""
    optimizer: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    """``sgd`` with Nesterov momentum, ``rmsprop`` or ``adamw``."""
    momentum: Share = 0.9
    """Of SGD and RMSProp; AdamW's first beta."""
    smoothing: Share | None = None
    """Decay of the mean squared gradient; null: 0.9 for RMSProp, 0.999 for AdamW."""
    epsilon: Annotated[float, Field(gt=0, le=1)] | None = None
    """Added to the root of that mean; null: 1e-3 for RMSProp, 1e-8 for AdamW."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-5
    """Once a step, on weights."""
    decay_norms: bool = False
    """Whether weight decay applies to norms and biases, too."""
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Peak rate, for the sum of the children's gradients."""
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    """How the rate falls from its peak."""
    warmup: Share = 0.05
    """Share of the steps in which the rate rises from 0."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the peak rate below which no schedule falls (BigNAS's constant ending)."""
    decay_rate: Annotated[float, Field(gt=0, le=1)] = 0.97
    """Of the exponential schedule: the factor of each `decay_epochs`."""
    decay_epochs: Annotated[float, Field(gt=0, le=1_000_000)] = 2.4
    """Of the exponential schedule."""
    clip_norm: Annotated[float, Field(gt=0, le=1e9)] | None = 5.0
    """Largest norm of the summed gradient; null for no such clipping."""
    clip_value: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Largest absolute value of the summed gradient's elements; null for no such clipping."""
    ema: Share | None = None
    """Decay of the exponential moving average of the weights, which is what is searched and
    exported; null: the weights themselves."""
    label_smoothing: Share = 0.1
    """For the largest child only, as dropout and drop-connect: see `regularise`."""
    dropout: Share = 0.1
    """Before the classifier."""
    drop_connect: Share = 0.0
    """Of the last residual block: the k-th of n bears k / n of it. Residual blocks are those whose
    shortcut is their input itself; pooled and projected ones are never dropped."""
    drop_connect_stages: Annotated[int, Field(gt=0, le=1000)] | None = None
    """Drop-connect in so many last stages only, at the rates that all have; null: in all."""
    regularise: Literal["largest", "all"] = "largest"
    """Which children bear smoothing (where they learn from labels), dropout and drop-connect."""
    zero_init: bool = True
    """Whether residual blocks start as their shortcuts: last norm's weight at 0."""
    sandwich: bool = True
    """Whether each step trains the largest and the smallest child; else random ones alone."""
    random_children: Annotated[int, Field(ge=0, le=64)] = 2
    """Children a step beside the largest and the smallest."""
    sampling: Literal["uniform", "stratified", "best_up", "fair"] = "uniform"
    """Rule of the random children: ``uniform`` (single path: one of them, `sandwich` false);
    ``stratified`` by MACs; ``best_up`` (of 3 of about equal MACs the one of lowest loss); ``fair``
    (all choices of a dimension equally often)."""
    distillation: Literal["soft", "alpha", "none"] = "soft"
    """What children learn from the largest: ``soft`` cross-entropy against its probabilities,
    ``alpha``-divergence; ``none``: they learn from the labels."""
    distill_from: Share = 0.0
    """Share of the steps after which children learn from the largest; before, from the labels."""
    augment: AugmentConfig = AugmentConfig()
    """Random crops and one strong augmentation an image."""
    sync_norm: bool = False
    """Whether batch statistics are those of all processes' images together."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a CUDA GPU if there is one."""
    mixed_precision: bool = True
    """bfloat16 autocast on a GPU; the CPU computes in float32."""
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Torch threads on the CPU; null for torch's own choice."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that read and augment images; 0: the training process itself."""
    guard: GuardConfig = GuardConfig()
    """What happens when the training goes wrong."""
    validations: Annotated[int, Field(ge=0, le=1000)] = 10
    """How often in all the largest and the smallest child are judged on search-validation images;
    the best checkpoint is kept."""
    checkpoint_seconds: Annotated[float, Field(gt=0, le=1e9)] = 60.0
    """Time between checkpoints."""
    keep_checkpoints: Annotated[int, Field(gt=0, le=1000)] = 3
    """Newest checkpoints that are kept, beside the best."""
    tensorboard: bool = False
    """Whether the log is written for TensorBoard, too; needs elastic-nas[tensorboard]."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if sum(getattr(self, length) is not None for length in LENGTHS) > 1:
            raise ValueError("give only one of epochs, minutes and steps")
        return self

    @model_validator(mode="after")
    def _some_child(self) -> Self:
        if not self.sandwich and not self.random_children:
            raise ValueError("sandwich: false needs random_children of at least 1")
        return self


class SearchConfig(_Strict):
    """How children are searched and judged."""

    strategy: Text = "evolution"
    """A module of ``elastic_nas/strategies/``, with options: ``evolution:population_size=30``."""
    evaluations: Annotated[int, Field(gt=0, le=10_000_000)] = 100
    """Children to evaluate."""
    calibration_images: Images = 512
    """Training images that re-estimate a candidate's batch-norm statistics."""
    validation_images: Images = 10_000
    """At most so many search-validation images judge a candidate."""
    export_calibration_images: Images = 4096
    """Training images that re-estimate the statistics of a child that is exported."""


class RunConfig(_Strict):
    """Everything a run depends on."""

    data: Annotated[DataConfig, BeforeValidator(_source)] = DataConfig()
    """Which images, and how they are read; a name alone is their source."""
    space: Text | None = None
    """A space with its options, e.g. ``tiny:size=32``; null: chosen from the images."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of weights, order, augmentation, children and splits, each through its own generator."""
    statistics: Literal["data", "imagenet"] = "data"
    """Mean and deviation that images are normalised by: the training images', or ImageNet's."""
    train: TrainConfig = TrainConfig()
    """How the supernet is trained."""
    search: SearchConfig = SearchConfig()
    """How children are searched and judged."""
