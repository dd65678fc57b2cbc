"""The last layer: features to logits."""

from dataclasses import dataclass
from typing import ClassVar

from elastic_nas.specs.block import FLOAT_BYTES, BlockSpec, Costs


@dataclass(frozen=True)
class ClassifierSpec(BlockSpec):
    """A linear layer with bias."""

    kind: ClassVar[str] = "classifier"
    in_features: int
    out_features: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_features,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.out_features,)

    @property
    def costs(self) -> Costs:
        weights = self.in_features * self.out_features
        return Costs(
            pointwise_macs=0,
            depthwise_macs=0,
            other_macs=weights,
            params=weights + self.out_features,
            weights=weights + self.out_features,
            channels=self.out_features,
            activation_bytes=FLOAT_BYTES * self.out_features,
            boundary_bytes=FLOAT_BYTES * (self.in_features + self.out_features),
            peak_bytes=FLOAT_BYTES * (self.in_features + self.out_features),
        )
