"""What every block spec offers: shapes, costs, and a key for the latency table."""

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from reprlib import repr  # in messages: short, whatever a file holds
from typing import Any, ClassVar, Self

from elastic_nas.errors import TableError

FLOAT_BYTES = 4
MAX_SIZE = 1_000_000
"""Of a block in a file: channels, pixels, features."""
MAYBE_ZERO = ("se_ch", "hidden_ch")
"""Sizes that are 0 where a part of the block is not there."""
WORDS = {
    "activation": ("relu", "hswish", "swish", "sigmoid", "hsigmoid"),
    "gate": ("sigmoid", "hsigmoid"),
    "shortcut": ("projected", "identity"),
}
"""What the fields that are texts may say."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a block costs at batch 1, counted, not measured.

    Attributes:
        pointwise_macs: Multiply-accumulates of 1x1 convolutions on maps.
        depthwise_macs: Of depthwise convolutions.
        other_macs: Of full convolutions, squeeze-excite and linear layers.
        params: Learned numbers as trained: weights, norm weights and biases, biases.
        weights: Numbers in the deployed file, batch norms folded.
        channels: Output channels of all its layers: each has a bias, and a scale where weights are
            quantised.
        activation_bytes: fp32 bytes of all tensors that the block's layers write.
        boundary_bytes: fp32 bytes of the block's input and output.
        peak_bytes: fp32 bytes of the tensors that are needed at one time, at most: a layer's input
            and output, and the block's input while its shortcut waits for it. What a runtime
            adds (padding, buffers that are larger than what they hold) is not counted.
    """

    pointwise_macs: int
    depthwise_macs: int
    other_macs: int
    params: int
    weights: int
    channels: int
    activation_bytes: int
    boundary_bytes: int
    peak_bytes: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates; norms, activations, pooling and adds are not counted."""
        return self.pointwise_macs + self.depthwise_macs + self.other_macs


@dataclass(frozen=True)
class BlockSpec:
    """One block as deployed. Subclasses add fields and say what they cost."""

    kind: ClassVar[str]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input without the batch: (channels, height, width) or (features,)."""
        raise NotImplementedError(f"{type(self).__name__} has no input_shape")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output without the batch."""
        raise NotImplementedError(f"{type(self).__name__} has no output_shape")

    @property
    def costs(self) -> Costs:
        """MACs, parameters and bytes at batch 1."""
        raise NotImplementedError(f"{type(self).__name__} has no costs")

    @property
    def key(self) -> dict[str, Any]:
        """The key of this block's entry in a latency table: its fields as plain values."""
        return {"kind": self.kind, **asdict(self)}

    @property
    def contradiction(self) -> str:
        """What of the fields cannot be together, or nothing."""
        return ""

    def union(self, other: Self) -> Self:
        """The smallest spec whose shared weights hold both: the larger of each number."""
        return type(self)(
            **{f.name: max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        )


def layer_values(there: int, written: int, activation: str = "", kept: int = 0) -> int:
    """How many numbers are in memory during a layer, at most.

    Activations work in place, but a swish needs its input beside the sigmoid of it.

    Args:
        there: Numbers that are in memory when it begins, its input among them.
        written: Numbers of its output.
        activation: That follows it.
        kept: What of `there` a later layer needs.
    """
    return max(there + written, kept + written * (2 if activation == "swish" else 1))


def spec_kinds() -> dict[str, type[BlockSpec]]:
    """All block kinds by name."""
    from elastic_nas.specs import classifier, conv, head, mbconv

    kinds = (conv.ConvSpec, mbconv.MBConvSpec, head.HeadSpec, classifier.ClassifierSpec)
    return {cls.kind: cls for cls in kinds}


@lru_cache
def _forms() -> dict[str, tuple[type[BlockSpec], dict[str, Any]]]:
    """Class, names and types of the fields of each kind."""
    return {
        kind: (cls, {f.name: f.type for f in fields(cls)}) for kind, cls in spec_kinds().items()
    }


def spec_from_key(key: object) -> BlockSpec:
    """The spec whose `key` this is.

    Args:
        key: Whatever a file gives.

    Raises:
        TableError: The kind is unknown, the fields are not exactly that kind's, or no block can
            have these values.
    """
    kind = key.get("kind") if isinstance(key, dict) else None
    if not isinstance(key, dict) or type(kind) is not str or kind not in _forms():
        raise TableError(f"unknown block kind in {repr(key)}; known: {', '.join(_forms())}.")
    cls, types = _forms()[kind]
    values = list(map(key.get, types))
    if len(key) != len(types) + 1 or list(map(type, values)) != list(types.values()):
        raise TableError(f"a {kind} block has the fields {', '.join(types)}, not {repr(key)}.")
    for name, value in zip(types, values, strict=True):
        if not _can_be(name, value):
            raise TableError(f"{name} of a {kind} block is {repr(value)}, which cannot be.")
    spec = cls(*values)
    if spec.contradiction:
        raise TableError(f"{spec.contradiction} in the block {repr(key)}.")
    return spec


def _can_be(name: str, value: Any) -> bool:
    """Whether a block's field may have this value, which is of the right type."""
    if value.__class__ is int:
        return 0 < value <= MAX_SIZE or (value == 0 and name in MAYBE_ZERO)
    return name not in WORDS or value in WORDS[name]
