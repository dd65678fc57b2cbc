"""Image classification: a linear classifier on the trunk's features, cross-entropy, top-1."""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from elastic_nas.specs import Unit
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.head import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What a supernet of image classifiers learns, and how it is judged."""

    def units(self, space: Any, classes: int) -> tuple[Unit, ...]:
        """The positions behind the space's trunk: the classifier."""
        trunk_end: Unit = space.units[-1]
        genes = tuple(gene for gene in trunk_end.genes if _sets_features(trunk_end, gene))
        at = [trunk_end.genes.index(gene) for gene in genes]

        def classifier(*values: int) -> ClassifierSpec:
            indices = [0] * len(trunk_end.genes)
            for place, gene, value in zip(at, genes, values, strict=True):
                indices[place] = space.dims[gene].choices.index(value)
            return ClassifierSpec(_features(trunk_end, tuple(indices)), classes)

        return (Unit("classifier", genes, space.dims, classifier),)

    def loss(self, logits_NK: "Tensor", labels_N: "Tensor", smoothing: float) -> "Tensor":
        """Mean cross-entropy with label smoothing, in float32."""
        from torch.nn import functional as F

        return F.cross_entropy(logits_NK.float(), labels_N, label_smoothing=smoothing)

    def distillation_loss(self, logits_NK: "Tensor", teacher_NK: "Tensor") -> "Tensor":
        """Mean cross-entropy against the teacher's probabilities, temperature 1, in float32.

        Args:
            logits_NK: The student's logits.
            teacher_NK: The teacher's *probabilities*, detached.
        """
        return -(teacher_NK * logits_NK.float().log_softmax(dim=1)).sum(dim=1).mean()

    def teacher(self, logits_NK: "Tensor") -> "Tensor":
        """The probabilities that students learn from: detached, in float32."""
        return logits_NK.detach().float().softmax(dim=1)

    def correct(self, logits_NK: "Tensor", labels_N: "Tensor") -> "Tensor":
        """Which answers are right: (N,) of bool."""
        return logits_NK.argmax(dim=1) == labels_N


def _features(trunk_end: Unit, indices: tuple[int, ...]) -> int:
    spec = trunk_end.spec_at(indices)
    assert isinstance(spec, HeadSpec)
    return spec.features


def _sets_features(trunk_end: Unit, gene: int) -> bool:
    """Whether the number of features depends on this gene of the trunk's last unit."""
    place = trunk_end.genes.index(gene)
    every = product(*map(range, trunk_end.sizes))
    pairs = ((indices, (*indices[:place], 0, *indices[place + 1 :])) for indices in every)
    return any(_features(trunk_end, one) != _features(trunk_end, other) for one, other in pairs)
