"""Image classification: a linear classifier on the trunk's features, cross-entropy, top-1."""

from dataclasses import dataclass
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
        choices = [space.dims[gene].choices for gene in trunk_end.genes]

        def classifier(*values: int) -> ClassifierSpec:
            pairs = zip(choices, values, strict=True)
            head = trunk_end.spec_at(tuple(options.index(value) for options, value in pairs))
            assert isinstance(head, HeadSpec)
            return ClassifierSpec(head.features, classes)

        return (Unit("classifier", trunk_end.genes, space.dims, classifier),)

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
