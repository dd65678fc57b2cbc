"""One file of weights for all models of a kit, so that gigabytes become megabytes.

Equal blocks have equal random weights, at every resolution and in every child, so each tensor is
stored once and named by the models as external data (ONNX IR, "External tensor data"). Beyond
`PERIOD` bytes it repeats itself, which a zip makes nothing of: what a multiplication takes does
not depend on the numbers, unless they are denormal. A kit of bignas has 15 MB instead of 3.5 GB.
"""

from collections.abc import Iterator

LEAST_BYTES = 256
"""Smaller tensors stay in their models."""
PERIOD = 8 * 2039
"""Half of the 32 KB that zip looks back, whole in numbers of any type, unlike any channel count."""
ALIGNMENT = 4096
"""That of memory maps."""


class SharedWeights:
    """Tensors by content.

    Args:
        location: The file's name as models beside it name it.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.size = 0
        self._offsets: dict[tuple[bytes, int], int] = {}

    def share(self, model: bytes) -> tuple[bytes, int]:
        """The model with its large tensors in the shared file, and the bytes of those."""
        import onnx

        proto = onnx.load_model_from_string(model)
        total = 0
        for tensor in proto.graph.initializer:
            length = len(tensor.raw_data)
            if length < LEAST_BYTES:
                continue
            total += length
            place = {"location": self.location, "length": length}
            place["offset"] = self._offset(tensor.raw_data[:PERIOD], length)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
        return proto.SerializeToString(), total

    def _offset(self, head: bytes, length: int) -> int:
        if (head, length) not in self._offsets:
            self._offsets[head, length] = self.size
            self.size += -(-length // ALIGNMENT) * ALIGNMENT
        return self._offsets[head, length]

    def chunks(self) -> Iterator[bytes]:
        """The shared file's content, tensor by tensor."""
        for head, length in self._offsets:
            content = (head * (length // len(head) + 1))[:length]
            yield content.ljust(-(-length // ALIGNMENT) * ALIGNMENT, b"\0")
