"""A space for photographs of 64 to 160 pixels on a laptop or one GPU."""

from dataclasses import dataclass

from elastic_nas.errors import ConfigError
from elastic_nas.spaces._mobile import MobileSpace, Stage, Trunk, check_activation

SIZES = (64, 96, 128, 160)


@dataclass(frozen=True)
class Space(MobileSpace):
    """Five stages behind a strided stem.

    Attributes:
        size: Largest input resolution in pixels: 64, 96, 128 or 160; children also take 16 and
            32 pixels less.
        activation: ``relu`` or ``hswish``.
    """

    size: int = 96
    activation: str = "relu"

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size of compact must be one of {SIZES}, got {self.size}.")
        check_activation(self.activation)

    @property
    def trunk(self) -> Trunk:
        kernels, expands = (3, 5), (3, 4, 6)
        return Trunk(
            resolutions=(self.size - 32, self.size - 16, self.size),
            stem=(16, 24),
            stem_stride=2,
            stages=(
                Stage(1, (16, 24), (1,), (3,), (1,), se=False),
                Stage(2, (24, 32), (1, 2, 3), kernels, expands, se=False),
                Stage(2, (40, 48), (1, 2, 3), kernels, expands, se=True),
                Stage(2, (80, 96), (1, 2, 3, 4), kernels, expands, se=True),
                Stage(2, (144, 160), (1, 2, 3), kernels, expands, se=True),
            ),
            head=(480, 640),
            head_expand=0,
            per_block=True,
            squeeze_of="expanded",
            activation=self.activation,
            gate="hsigmoid",
        )
