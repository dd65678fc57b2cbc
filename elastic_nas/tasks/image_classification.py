"""Image classification: a linear classifier on the trunk's features, cross-entropy, top-1."""

import math
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

    def loss(self, logits_NK: "Tensor", targets: "Tensor", smoothing: float) -> "Tensor":
        """Mean cross-entropy with label smoothing, in float32.

        Args:
            logits_NK: Logits.
            targets: Class indices (N,), or shares of classes (N, K) as mixup and cutmix make them.
            smoothing: Label smoothing.
        """
        from torch.nn import functional as F

        return F.cross_entropy(logits_NK.float(), targets, label_smoothing=smoothing)

    def teacher(self, logits_NK: "Tensor") -> "Tensor":
        """What students learn from: log-probabilities, detached, in float32."""
        return logits_NK.detach().float().log_softmax(dim=1)

    def distillation_loss(
        self, logits_NK: "Tensor", teacher_NK: "Tensor", divergence: str = "soft"
    ) -> "Tensor":
        """Mean loss of students, temperature 1, in float32.

        Args:
            logits_NK: The student's logits.
            teacher_NK: The teacher's log-probabilities.
            divergence: ``soft``: cross-entropy against the teacher's probabilities. ``alpha``:
                AlphaNet's adaptive alpha-divergence (Wang et al., 2021,
                https://arxiv.org/abs/2102.07954, sec. 3), alpha -1 and 1, ratios clipped at 5.
        """
        student_NK = logits_NK.float().log_softmax(dim=1)
        if divergence == "alpha":
            return _alpha_divergence(student_NK, teacher_NK)
        return -(teacher_NK.exp() * student_NK).sum(dim=1).mean()

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


MOST_RATIO = 5.0
"""Of the student's probability to the teacher's, where alpha is -1 (AlphaNet's clipping)."""


def _alpha_divergence(student_NK: "Tensor", teacher_NK: "Tensor") -> "Tensor":
    """The larger of two divergences of each sample, from log-probabilities.

    Its gradient flows through the student's log-probabilities alone, as the paper's estimator
    prescribes; the value is the divergence's.
    """
    q, p = student_NK.detach(), teacher_NK
    clipped = (q - p).clamp(max=math.log(MOST_RATIO)).exp()
    forward_N = (p.exp() * (p - q)).sum(dim=1)
    reverse_N = (q.exp() * (clipped - 1)).sum(dim=1) / 2
    weight_NK = (q.exp() * (0.5 - clipped)).where((reverse_N > forward_N)[:, None], p.exp())
    surrogate_N = -(weight_NK * student_NK).sum(dim=1)
    value_N = reverse_N.maximum(forward_N)
    return (surrogate_N + (value_N - surrogate_N).detach()).mean()
