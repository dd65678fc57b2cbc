"""The architecture as a value: a genotype is a tuple of choice indices.

Everything here works on `Dims`, the elastic dimensions of a network, and needs no torch.
A gene may *need* another one: the kernel of a stage's fourth block matters only where the
stage is at least four blocks deep. That single fact gives the canonical form, the exact
number of children and uniform sampling.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from random import Random

from elastic_nas.errors import GenotypeError
from elastic_nas.plugins import suggest

Genotype = tuple[int, ...]
"""One index per `Dim`: which of that dimension's choices this child takes."""


@dataclass(frozen=True, slots=True)
class Dim:
    """One elastic dimension, e.g. ``Dim("stage2.kernel", (3, 5, 7))``; choices ascend.

    `needs` is ``(position, index)`` where this gene matters only if the gene at that earlier
    position is at least that index.
    """

    name: str
    choices: tuple[int, ...]
    needs: tuple[int, int] | None = None


Dims = tuple[Dim, ...]

_INDEX = re.compile(r"\s*[0-9]{1,9}\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Score:
    """What was learnt of a child.

    Attributes:
        objectives: Numbers to minimise, e.g. (error rate, latency bound in ms).
        violation: Summed relative overrun of all budgets; 0 where the child is feasible.
    """

    objectives: tuple[float, ...]
    violation: float = 0.0


def largest(dims: Dims) -> Genotype:
    """The child with every gene at its last choice."""
    return tuple(len(dim.choices) - 1 for dim in dims)


def smallest(dims: Dims) -> Genotype:
    """The child with every gene at its first choice."""
    return (0,) * len(dims)


ENDS: dict[str, Callable[[Dims], Genotype]] = {"smallest": smallest, "largest": largest}
"""Children that have a name in every space."""


def is_active(dims: Dims, genotype: Genotype, position: int) -> bool:
    """Whether the gene at `position` changes anything in this child."""
    needs = dims[position].needs
    if needs is None:
        return True
    parent, least = needs
    return genotype[parent] >= least and is_active(dims, genotype, parent)


def canonical(dims: Dims, genotype: Genotype) -> Genotype:
    """The genotype with inactive genes zeroed, so that equal children compare equal."""
    return tuple(
        gene if is_active(dims, genotype, position) else 0 for position, gene in enumerate(genotype)
    )


def check(dims: Dims, genotype: Genotype) -> Genotype:
    """The genotype itself.

    Raises:
        GenotypeError: It has another length than `dims`, or a gene is out of range.
    """
    if len(genotype) != len(dims):
        raise GenotypeError(f"this space has {len(dims)} genes, the genotype has {len(genotype)}.")
    for dim, gene in zip(dims, genotype, strict=True):
        if not 0 <= gene < len(dim.choices):
            raise GenotypeError(
                f"gene {dim.name} is {gene}, but it must be 0 to {len(dim.choices) - 1} "
                f"(for {', '.join(map(str, dim.choices))})."
            )
    return genotype


def format_genotype(genotype: Genotype) -> str:
    """The one text form: choice indices joined by commas, ``0,2,1``."""
    return ",".join(map(str, genotype))


def parse_genotype(dims: Dims, text: str) -> Genotype:
    """The canonical genotype that `text` spells: ``0,2,1``, ``smallest`` or ``largest``.

    Raises:
        GenotypeError: `text` is neither an end nor comma-separated whole numbers that fit `dims`.
    """
    if text in ENDS:
        return ENDS[text](dims)
    if text.isalpha():
        raise GenotypeError(
            f"no child called {text!r}{suggest(text, list(ENDS))}\nA child is smallest, largest, "
            f"or a genotype such as {format_genotype(smallest(dims))}."
        )
    parts = text.strip().split(",")
    if not all(_INDEX.fullmatch(part) for part in parts):
        raise GenotypeError(
            f"{text!r} is not a genotype; write {len(dims)} choice indices joined by commas, "
            f"such as {format_genotype(smallest(dims))}."
        )
    return canonical(dims, check(dims, tuple(int(part) for part in parts)))


def _subtree_counts(dims: Dims) -> list[list[int]]:
    """For each dim and each gene, the number of canonical ways to set the genes that need it."""
    counts: list[list[int]] = [[] for _ in dims]
    for position in reversed(range(len(dims))):
        children = [
            (child, dim.needs[1])
            for child, dim in enumerate(dims)
            if dim.needs is not None and dim.needs[0] == position
        ]
        counts[position] = [
            prod(sum(counts[child]) for child, least in children if gene >= least)
            for gene in range(len(dims[position].choices))
        ]
    return counts


def count(dims: Dims) -> int:
    """The exact number of canonical children."""
    counts = _subtree_counts(dims)
    return prod(sum(counts[i]) for i, dim in enumerate(dims) if dim.needs is None)


def children(dims: Dims) -> Iterator[Genotype]:
    """Every canonical child once; for small spaces."""
    for genotype in product(*(range(len(dim.choices)) for dim in dims)):
        if genotype == canonical(dims, genotype):
            yield genotype


def sample(dims: Dims, rng: Random) -> Genotype:
    """A child drawn uniformly from all canonical children."""
    counts = _subtree_counts(dims)
    genotype: list[int] = []
    for position, dim in enumerate(dims):
        active = dim.needs is None or genotype[dim.needs[0]] >= dim.needs[1]
        weights = counts[position]
        genotype.append(rng.choices(range(len(weights)), weights)[0] if active else 0)
    return canonical(dims, tuple(genotype))


def sample_genes(dims: Dims, rng: Random) -> Genotype:
    """A child with every gene drawn uniformly, as supernet training samples (BigNAS, 2020).

    Unlike `sample`, shallow and deep children are equally likely.
    """
    return canonical(dims, tuple(rng.randrange(len(dim.choices)) for dim in dims))


def mutate(dims: Dims, genotype: Genotype, rng: Random, rate: float) -> Genotype:
    """A copy in which each gene is redrawn with probability `rate`; at least one changes.

    Only a space of one single child returns it unchanged.
    """
    free = [i for i, dim in enumerate(dims) if len(dim.choices) > 1]
    if not free:
        return genotype
    forced = rng.choice([i for i in free if is_active(dims, genotype, i)])
    genes = list(genotype)
    for i in free:
        if i == forced:
            genes[i] = rng.choice([g for g in range(len(dims[i].choices)) if g != genotype[i]])
        elif rng.random() < rate:
            genes[i] = rng.randrange(len(dims[i].choices))
    return canonical(dims, tuple(genes))


def crossover(dims: Dims, one: Genotype, other: Genotype, rng: Random) -> Genotype:
    """A child that takes each gene from one of two parents (uniform crossover)."""
    return canonical(dims, tuple(rng.choice(pair) for pair in zip(one, other, strict=True)))
