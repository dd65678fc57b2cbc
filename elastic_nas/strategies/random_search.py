"""Random search: every child is as likely as any other. The baseline of every comparison."""

from dataclasses import dataclass
from random import Random

from elastic_nas.genotype import Dims, Genotype, Score, sample


@dataclass
class Search:
    """Uniform over the canonical children; learns nothing."""

    dims: Dims
    rng: Random

    def ask(self) -> Genotype:
        """The next child to evaluate."""
        return sample(self.dims, self.rng)

    def tell(self, genotype: Genotype, score: Score) -> None:
        """What that child scored: of no use here."""
