"""A space for images of 8 to 32 pixels, such as handwritten digits or CIFAR-10."""

from dataclasses import dataclass

from elastic_nas.errors import ConfigError
from elastic_nas.spaces._mobile import MobileSpace, Stage, Trunk, check_activation

SIZES = (8, 16, 24, 32)


@dataclass(frozen=True)
class Space(MobileSpace):
    """Three stages without a strided stem.

    Attributes:
        size: Largest input resolution in pixels: 8, 16, 24 or 32; children also take a half
            and three quarters of it.
        activation: ``relu`` or ``hswish``.
    """

    size: int = 16
    activation: str = "relu"

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"size of tiny must be one of {SIZES}, got {self.size}.")
        check_activation(self.activation)

    @property
    def trunk(self) -> Trunk:
        kernels, expands = (3, 5), (3, 4, 6)
        return Trunk(
            resolutions=(self.size // 2, self.size * 3 // 4, self.size),
            stem=(8, 16),
            stem_stride=1,
            stages=(
                Stage(1, (8, 16, 24), (1, 2), kernels, expands, se=False),
                Stage(2, (16, 24, 32), (1, 2, 3), kernels, expands, se=True),
                Stage(2, (24, 32, 48), (1, 2, 3), kernels, expands, se=True),
            ),
            head=(64, 128),
            head_expand=0,
            per_block=True,
            squeeze_of="expanded",
            activation=self.activation,
            gate="hsigmoid",
        )
