"""What a checkpoint says of itself: one model for its writer and its readers."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from elastic_nas.network import MAX_CLASSES
from elastic_nas.strict import Sha256, Strict, Text

SCHEMA, WITHOUT_HASH = "elastic-supernet/2", "elastic-supernet/1"
MOST_STEPS = 10**12
"""Steps of a training."""

Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Word = Annotated[str, Field(max_length=100)]
Loss = Annotated[float, Field(ge=-1e30, le=1e30)]


class GuardState(Strict):
    """All that the guard's decisions depend on.

    Attributes:
        rate: What the learning rate is multiplied by.
        rolled_back: How often the training went back.
        means: Running mean of the losses of each kind of child.
        looks: How many losses the means have seen.
        spikes: Looks in a row, up to the last one, in which a loss was a spike.
        sinking: Looks in a row in which the network was nearly back at chance.
        learned: Whether the largest child was clearly better than chance before.
    """

    rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    rolled_back: Count = 0
    means: Annotated[dict[Word, Loss], Field(max_length=16)] = Field(default_factory=dict)
    looks: Count = 0
    spikes: Count = 0
    sinking: Count = 0
    learned: bool = False


class _Common(Strict):
    space: Text
    identity: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    step: Count
    steps: Count
    guard: GuardState = GuardState()

    @model_validator(mode="after")
    def _step_of_steps(self) -> Self:
        if self.step > self.steps:
            raise ValueError(f"it says step {self.step} of {self.steps}")
        return self


class FirstHeader(_Common):
    """The metadata of a checkpoint of version 0.1.0, which has no hash: nothing else is in it."""

    format: Annotated[Literal["elastic-supernet/1"], Field(alias="schema")]
    version: Word
    torch: Word


class Splits(Strict):
    """Hashes of the images and labels of each side; see `data.record.DataRecord.fingerprints`."""

    train: Sha256
    validation: Sha256
    test: Sha256


class Header(_Common):
    """The metadata of a checkpoint.

    Attributes:
        versions: Of what the weights' bits depend on.
        commit: Of the checkout that wrote it, if it was one.
        preprocess: How images were resized and normalised; see `data.preprocess`.
        seed: Of the training and of the splits.
        data: Name of the data set.
        statistics: What images were normalised by.
        images: Which images it was trained, selected and tested on.
        splits: The same in checkpoints before images had identities; not compared.
        processes: That trained together.
        train: The run file's section.
        score: Of the validation, where there was one.
        sha256: Over metadata and tensors.
    """

    format: Annotated[Literal["elastic-supernet/2"], Field(alias="schema")]
    versions: Annotated[dict[Word, Word], Field(max_length=16)]
    commit: Word | None
    preprocess: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    data: Annotated[str, Field(max_length=4096)] | None = None
    statistics: Literal["data", "imagenet"] | None = None
    images: Splits | None = None
    splits: Splits | None = None
    processes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    train: dict[str, Any] = Field(default_factory=dict)
    score: Annotated[float, Field(ge=-1e30, le=1e30)] | None = None
    sha256: Sha256
