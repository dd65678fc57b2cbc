"""BigNAS's space (Yu et al., 2020, https://arxiv.org/abs/2003.11142), one kernel a stage.

Squeeze width follows the block's input width, as in EfficientNet: with the expanded width the
smallest child would have 5.6 M parameters, and the published 4.5 M could not exist.
"""

from dataclasses import dataclass

from elastic_nas.spaces._mobile import MobileSpace, Stage, Trunk


@dataclass(frozen=True)
class Space(MobileSpace):
    """ImageNet space of 217-1892 M multiply-accumulates at 192-320 px."""

    @property
    def trunk(self) -> Trunk:
        return Trunk(
            resolutions=(192, 224, 288, 320),
            stem=(32, 40),
            stem_stride=2,
            stages=(
                Stage(1, (16, 24), (1, 2), (3,), (1,), se=True),
                Stage(2, (24, 32), (2, 3), (3,), (6,), se=True),
                Stage(2, (40, 48), (2, 3), (3, 5), (6,), se=True),
                Stage(2, (80, 88), (2, 3, 4), (3, 5), (6,), se=True),
                Stage(1, (112, 120, 128), (2, 3, 4, 5, 6), (3, 5), (6,), se=True),
                Stage(2, (192, 200, 208, 216), (2, 3, 4, 5, 6), (3, 5), (6,), se=True),
                Stage(1, (320, 352), (1, 2), (3, 5), (6,), se=True),
            ),
            head=(1280, 1408),
            head_expand=0,
            per_block=False,
            squeeze_of="input",
            activation="swish",
            gate="sigmoid",
        )
