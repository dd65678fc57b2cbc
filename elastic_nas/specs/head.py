"""The end of the trunk: 1x1 convolution, global average pool, perhaps a hidden layer."""

from dataclasses import dataclass
from typing import ClassVar

from elastic_nas.specs.block import FLOAT_BYTES, BlockSpec, Costs, layer_values


@dataclass(frozen=True)
class HeadSpec(BlockSpec):
    """1x1 convolution with norm and activation, global average pool, optional hidden layer.

    Attributes:
        mid_ch: Channels of the 1x1 convolution.
        hidden_ch: Outputs of a second, norm-free and bias-free 1x1 convolution with activation
            after the pool (MobileNetV3, AttentiveNAS); 0 for none.
    """

    kind: ClassVar[str] = "head"
    height: int
    width: int
    in_ch: int
    mid_ch: int
    hidden_ch: int
    activation: str

    @property
    def features(self) -> int:
        """Number of output features."""
        return self.hidden_ch or self.mid_ch

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_ch, self.height, self.width)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.features,)

    @property
    def costs(self) -> Costs:
        area = self.height * self.width
        conv, hidden = self.in_ch * self.mid_ch, self.mid_ch * self.hidden_ch
        inputs, maps = self.in_ch * area, self.mid_ch * area
        values = maps + self.mid_ch + self.hidden_ch
        return Costs(
            pointwise_macs=conv * area,
            depthwise_macs=0,
            other_macs=hidden,
            params=conv + hidden + 2 * self.mid_ch,
            weights=conv + hidden + self.mid_ch,
            channels=self.mid_ch + self.hidden_ch,
            activation_bytes=FLOAT_BYTES * values,
            boundary_bytes=FLOAT_BYTES * (inputs + self.features),
            peak_bytes=FLOAT_BYTES
            * max(
                layer_values(inputs, maps, self.activation),
                layer_values(maps, self.mid_ch),
                layer_values(self.mid_ch, self.hidden_ch, self.activation),
            ),
        )
