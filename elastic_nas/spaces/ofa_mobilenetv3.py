"""Once-for-All's space of MobileNetV3 (Cai et al., 2020, https://arxiv.org/abs/1908.09791).

Widths are fixed; shortcuts are the identity or nothing; smaller kernels are learned functions of
larger ones. `elastic-nas import-ofa` reads its published supernets.
"""

from dataclasses import dataclass

from elastic_nas.errors import ConfigError
from elastic_nas.spaces._mobile import MobileSpace, Stage, Trunk
from elastic_nas.specs.shapes import round8

WIDTHS = (1.0, 1.2)


@dataclass(frozen=True)
class Space(MobileSpace):
    """ImageNet space at 128-224 px, kernel and expand per block.

    Attributes:
        width: What all widths are multiplied by: 1.0 or 1.2, as published.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            raise ConfigError(f"width of ofa_mobilenetv3 must be 1.0 or 1.2, got {self.width}.")

    @property
    def trunk(self) -> Trunk:
        return Trunk(
            resolutions=tuple(range(128, 225, 4)),
            stem=self._wide(16),
            stem_stride=2,
            stages=(
                Stage(1, self._wide(16), (1,), (3,), (1,), se=False, activation="relu"),
                self._stage(2, 24, se=False, activation="relu"),
                self._stage(2, 40, se=True, activation="relu"),
                self._stage(2, 80, se=False),
                self._stage(1, 112, se=True),
                self._stage(2, 160, se=True),
            ),
            head=self._wide(1280),
            head_expand=6,
            per_block=True,
            squeeze_of="expanded",
            activation="hswish",
            gate="hsigmoid",
            shortcut="identity",
            kernel_transform=True,
        )

    def _wide(self, channels: int) -> tuple[int, ...]:
        return (round8(channels * self.width),)

    def _stage(self, stride: int, channels: int, *, se: bool, activation: str = "") -> Stage:
        return Stage(stride, self._wide(channels), (2, 3, 4), (3, 5, 7), (3, 4, 6), se, activation)
