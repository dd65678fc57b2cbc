"""A convolution with batch norm and activation: the stem."""

from dataclasses import dataclass
from typing import ClassVar

from elastic_nas.specs.block import FLOAT_BYTES, BlockSpec, Costs, layer_values
from elastic_nas.specs.shapes import strided


@dataclass(frozen=True)
class ConvSpec(BlockSpec):
    """A full convolution, padding kernel // 2, without bias; then norm and activation."""

    kind: ClassVar[str] = "conv"
    height: int
    width: int
    in_ch: int
    out_ch: int
    kernel: int
    stride: int
    activation: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_ch, self.height, self.width)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.out_ch, strided(self.height, self.stride), strided(self.width, self.stride))

    @property
    def costs(self) -> Costs:
        channels, height, width = self.output_shape
        weights = self.kernel**2 * self.in_ch * self.out_ch
        inputs, outputs = self.in_ch * self.height * self.width, channels * height * width
        return Costs(
            pointwise_macs=0,
            depthwise_macs=0,
            other_macs=weights * height * width,
            params=weights + 2 * self.out_ch,
            weights=weights + self.out_ch,
            channels=self.out_ch,
            activation_bytes=FLOAT_BYTES * outputs,
            boundary_bytes=FLOAT_BYTES * (inputs + outputs),
            peak_bytes=FLOAT_BYTES * layer_values(inputs, outputs, self.activation),
        )
