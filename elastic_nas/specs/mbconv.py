"""The mobile inverted bottleneck: expand, depthwise, squeeze-excite, project, shortcut."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from elastic_nas.specs.block import FLOAT_BYTES, BlockSpec, Costs, layer_values
from elastic_nas.specs.shapes import strided


@dataclass(frozen=True)
class MBConvSpec(BlockSpec):
    """MBConv (Sandler et al., 2018; squeeze-excite as in EfficientNet).

    Attributes:
        mid_ch: Expanded width; equal to `in_ch` where there is no expansion convolution.
        expanded: Whether there is an expansion convolution at all (expand 1: none).
        se_ch: Squeeze width; 0 without squeeze-excite.
        gate: Squeeze-excite's gate, ``sigmoid`` or ``hsigmoid``.
        shortcut: ``projected``: 2x2 average pool if strided, 1x1 convolution if the widths
            differ (AttentiveNAS); ``identity``: only where neither changes (Once-for-All).
    """

    kind: ClassVar[str] = "mbconv"
    height: int
    width: int
    in_ch: int
    mid_ch: int
    out_ch: int
    kernel: int
    stride: int
    se_ch: int
    expanded: bool
    activation: str
    gate: str
    shortcut: str

    @property
    def contradiction(self) -> str:
        if not self.expanded and self.mid_ch != self.in_ch:
            return f"mid_ch is {self.mid_ch}, in_ch {self.in_ch}, but nothing expands"
        return ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_ch, self.height, self.width)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.out_ch, strided(self.height, self.stride), strided(self.width, self.stride))

    @property
    def has_shortcut(self) -> bool:
        """Whether the block's input is added to its output, in one way or another."""
        return self.shortcut == "projected" or self.keeps_input

    @property
    def keeps_input(self) -> bool:
        """Whether the shortcut is the input itself, neither pooled nor projected."""
        return self.stride == 1 and self.in_ch == self.out_ch

    @property
    def has_projection(self) -> bool:
        """Whether the shortcut has a 1x1 convolution."""
        return self.shortcut == "projected" and self.in_ch != self.out_ch

    @property
    def costs(self) -> Costs:
        _, height, width = self.output_shape
        in_area, area = self.height * self.width, height * width
        expansion = self.in_ch * self.mid_ch if self.expanded else 0
        projection = self.mid_ch * self.out_ch
        shortcut = self.in_ch * self.out_ch if self.has_projection else 0
        depthwise = self.kernel**2 * self.mid_ch
        squeeze = 2 * self.mid_ch * self.se_ch
        squeeze_biases = self.mid_ch + self.se_ch if self.se_ch else 0
        norm_ch = (self.mid_ch if self.expanded else 0) + self.mid_ch + self.out_ch
        weights = expansion + depthwise + squeeze + squeeze_biases + projection + shortcut
        inputs, outputs = self.in_ch * in_area, self.out_ch * area
        expanded_values = self.mid_ch * in_area if self.expanded else 0
        gated_values = self.mid_ch * area if self.se_ch else 0
        values = expanded_values + self.mid_ch * area + gated_values + outputs
        return Costs(
            pointwise_macs=expansion * in_area + (projection + shortcut) * area,
            depthwise_macs=depthwise * area,
            other_macs=squeeze,
            params=weights + 2 * norm_ch,
            weights=weights + norm_ch,
            channels=norm_ch + squeeze_biases + (self.out_ch if self.has_projection else 0),
            activation_bytes=FLOAT_BYTES * values,
            boundary_bytes=FLOAT_BYTES * (inputs + outputs),
            peak_bytes=FLOAT_BYTES * max(self._values_at_once()),
        )

    def _values_at_once(self) -> Iterator[int]:
        """Numbers that are needed during each layer; the input is kept for the shortcut."""
        _, height, width = self.output_shape
        in_area, area = self.height * self.width, height * width
        inputs, maps, outputs = self.in_ch * in_area, self.mid_ch * area, self.out_ch * area
        kept = inputs if self.has_shortcut else 0
        there = inputs
        if self.expanded:
            expanded = self.mid_ch * in_area
            yield layer_values(inputs, expanded, self.activation, kept)
            there = kept + expanded
        yield layer_values(there, maps, self.activation, kept)
        if self.se_ch:
            yield layer_values(kept + maps + self.mid_ch, self.se_ch)
        yield layer_values(kept + maps, outputs)
        if self.has_shortcut:
            halved = self.in_ch * area
            yield layer_values(inputs + outputs, halved if self.stride == 2 else 0)
            yield layer_values(halved + outputs, outputs if self.has_projection else 0)
