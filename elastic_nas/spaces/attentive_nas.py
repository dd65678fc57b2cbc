"""AttentiveNAS's space (Wang et al., 2021, https://arxiv.org/abs/2011.09011)."""

from dataclasses import dataclass

from elastic_nas.spaces._mobile import MobileSpace, Stage, Trunk


@dataclass(frozen=True)
class Space(MobileSpace):
    """ImageNet space of 203-1939 M multiply-accumulates at 192-288 px."""

    @property
    def trunk(self) -> Trunk:
        return Trunk(
            resolutions=(192, 224, 256, 288),
            stem=(16, 24),
            stem_stride=2,
            stages=(
                Stage(1, (16, 24), (1, 2), (3, 5), (1,), se=False),
                Stage(2, (24, 32), (3, 4, 5), (3, 5), (4, 5, 6), se=False),
                Stage(2, (32, 40), (3, 4, 5, 6), (3, 5), (4, 5, 6), se=True),
                Stage(2, (64, 72), (3, 4, 5, 6), (3, 5), (4, 5, 6), se=False),
                Stage(1, (112, 120, 128), (3, 4, 5, 6, 7, 8), (3, 5), (4, 5, 6), se=True),
                Stage(2, (192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (3, 5), (6,), se=True),
                Stage(1, (216, 224), (1, 2), (3, 5), (6,), se=True),
            ),
            head=(1792, 1984),
            head_expand=6,
            per_block=False,
            squeeze_of="expanded",
            activation="swish",
            gate="hsigmoid",
        )
