"""Which children a step trains: the sandwich, and the rules that random children are drawn by."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from elastic_nas.config import TrainConfig
from elastic_nas.genotype import Genotype, sample_genes
from elastic_nas.network import Network

CANDIDATES = 3
"""Children of about equal MACs of which best-up sampling trains one (AttentiveNAS, sec. 3.2)."""
DRAWS = 16
"""Uniform draws of which the one nearest to the wanted MACs is taken."""

Losses = Callable[[list[Genotype]], list[float]]
"""The loss of each child on the batch of the step, without training."""


@dataclass(frozen=True)
class Lesson:
    """What one child learns in a step.

    Attributes:
        genotype: The child.
        from_labels: It learns from the labels; else from the first child's probabilities.
        regularised: It bears label smoothing, dropout and drop-connect.
    """

    genotype: Genotype
    from_labels: bool = False
    regularised: bool = False


class Sampler:
    """Draws the children of each step, a pure function of the seed and the step.

    Args:
        network: The description.
        config: `sandwich`, `random_children`, `sampling`, `distillation` and `regularise` count.
        seed: Of all draws.
    """

    def __init__(self, network: Network, config: TrainConfig, seed: int) -> None:
        self._network, self._config, self._seed = network, config, seed
        self._span = (network.macs(network.smallest), network.macs(network.largest))

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the children of every step are, in order: largest, random, smallest."""
        if self._network.largest == self._network.smallest:
            return ("largest",)
        random = ("random",) * self._config.random_children
        return ("largest", *random, "smallest") if self._config.sandwich else random

    def lessons(self, step: int, losses: Losses | None = None, share: float = 1.0) -> list[Lesson]:
        """The lessons of a step in order: the largest child, the random ones, the smallest.

        Args:
            step: Number of the step.
            share: Of the training's steps that are done.
            losses: Judges the candidates of best-up sampling.
        """
        config, network = self._config, self._network
        if network.largest == network.smallest:  # a network of one child
            return [Lesson(network.largest, from_labels=True, regularised=True)]
        drawn = self._drawn(step, losses)
        everyone = config.regularise == "all"
        taught = config.distillation != "none" and share >= config.distill_from
        if config.sandwich:
            others = [Lesson(g, not taught, everyone) for g in (*drawn, network.smallest)]
            return [Lesson(network.largest, from_labels=True, regularised=True), *others]
        return [Lesson(genotype, from_labels=True, regularised=everyone) for genotype in drawn]

    def _drawn(self, step: int, losses: Losses | None) -> list[Genotype]:
        rng = Random(f"children-{self._seed}-{step}")
        n, dims = self._config.random_children, self._network.dims
        match self._config.sampling:
            case "stratified":
                return [self._near(self._macs((k + rng.random()) / n), rng) for k in range(n)]
            case "best_up":
                assert losses is not None
                return [self._best_up(rng, losses) for _ in range(n)]
            case "fair":
                return [self._fair(step * n + k) for k in range(n)]
        return [sample_genes(dims, rng) for _ in range(n)]

    def _macs(self, share: float) -> float:
        least, most = self._span
        return least + (most - least) * share

    def _near(self, macs: float, rng: Random) -> Genotype:
        """Of some uniform draws the one nearest to `macs`; bounded, unlike rejection."""
        drawn = [sample_genes(self._network.dims, rng) for _ in range(DRAWS)]
        return min(drawn, key=lambda genotype: abs(self._network.macs(genotype) - macs))

    def _best_up(self, rng: Random, losses: Losses) -> Genotype:
        """AttentiveNAS (Wang et al., 2021), sec. 3: the best of some children of equal MACs."""
        macs = self._macs(rng.random())
        candidates = [self._near(macs, rng) for _ in range(CANDIDATES)]
        judged = losses(candidates)
        return candidates[judged.index(min(judged))]

    def _fair(self, number: int) -> Genotype:
        """The `number`-th child of all: each run of as many as a dimension has choices takes every
        choice once, in an order drawn anew (FairNAS, Chu et al., 2021, sec. 3.2)."""
        genes = []
        for position, dim in enumerate(self._network.dims):
            turn, place = divmod(number, len(dim.choices))
            order = list(range(len(dim.choices)))
            Random(f"fair-{self._seed}-{position}-{turn}").shuffle(order)
            genes.append(order[place])
        return tuple(genes)
