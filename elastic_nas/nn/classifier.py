"""The last layer: features to logits; elastic, plain and as ONNX."""

from torch import Tensor, nn
from torch.nn import functional as F

from elastic_nas.nn.layers import ElasticLinear
from elastic_nas.nn.onnx_writer import GraphWriter
from elastic_nas.specs.classifier import ClassifierSpec


class Plain(nn.Module):
    """The layer that a `ClassifierSpec` describes."""

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        self.linear = nn.Linear(spec.in_features, spec.out_features)

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N, in_features) to (N, out_features)."""
        return self.linear(x_NC)

    def write(self, graph: GraphWriter, x: str, name: str) -> str:
        """Add this layer to an ONNX graph; returns its output's name."""
        return graph.linear(f"{name}.linear", x, self.linear)


class Elastic(nn.Module):
    """Shared weights of all `ClassifierSpec`s that can stand at one position."""

    def __init__(self, specs: list[ClassifierSpec]) -> None:
        super().__init__()
        self.linear = ElasticLinear(max(s.in_features for s in specs), specs[0].out_features)

    def forward(self, x_NC: Tensor, spec: ClassifierSpec, dropout: float = 0.0) -> Tensor:
        """What `slice(spec)` computes, on the shared weights; dropout on the features."""
        assert x_NC.shape[1] == spec.in_features
        return self.linear(F.dropout(x_NC, dropout) if dropout else x_NC)

    def slice(self, spec: ClassifierSpec) -> Plain:
        """The child's own copy."""
        plain = Plain(spec)
        plain.linear = self.linear.slice(spec.in_features)
        return plain
