"""What to measure for a network: its blocks, children to fit on, others for the bound, anchors.

A plan depends on nothing but the network and a seed, so that a kit on another machine, an
interrupted profile and a later check all mean the same children.
"""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from elastic_nas.additive import AdditiveCost
from elastic_nas.genotype import Genotype, sample, sample_genes
from elastic_nas.specs import BlockSpec
from elastic_nas.specs.classifier import ClassifierSpec

if TYPE_CHECKING:
    from elastic_nas.network import Network

CLASSES = (2, 10, 100, 1000)
"""Outputs of the classifiers that are measured beside the network's own."""
POOL = 1000
TRIES_PER_CHILD = 100
ANCHORS = 9
"""Each is as noisy as any child, and their mean must be much better than the model."""


@dataclass(frozen=True)
class Draw:
    """How many children to measure, and the seed of their choice."""

    n_fit: int = 40
    n_calibrate: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        blocks: The distinct blocks of all children, classifiers of several sizes among them.
        fit: Children to fit the model on, spread over latency and resolution.
        calibrate: Other children, drawn uniformly, for the bound and the quality.
        anchors: Some of `fit`, from the smallest to the largest, that tell the machine's speed.
    """

    blocks: tuple[BlockSpec, ...]
    fit: tuple[Genotype, ...]
    calibrate: tuple[Genotype, ...]
    anchors: tuple[Genotype, ...]


def plan_for(network: "Network", draw: Draw) -> Plan:
    """What to measure so that every child of `network` can be predicted."""
    fit = fit_children(network, draw.n_fit, draw.seed)
    calibrate = calibration_children(network, draw.n_calibrate, draw.seed, exclude=fit)
    return Plan(wanted_blocks(network), tuple(fit), tuple(calibrate), anchors_of(network, fit))


def wanted_blocks(network: "Network") -> tuple[BlockSpec, ...]:
    """The distinct blocks that must be measured, classifiers of several sizes among them."""
    specs: dict[BlockSpec, None] = {}
    for unit in network.units:
        for spec in unit.specs():
            specs[spec] = None
            if isinstance(spec, ClassifierSpec):
                specs |= dict.fromkeys(ClassifierSpec(spec.in_features, n) for n in CLASSES)
    return tuple(specs)


def guessed_ms(spec: BlockSpec) -> float:
    """A guess at a block's latency that puts children roughly in order, on any device."""
    return 2e-8 * spec.costs.macs + 1e-7 * spec.costs.activation_bytes + 0.002


def fit_children(network: "Network", n: int, seed: int) -> list[Genotype]:
    """The smallest child, the largest, and others spread over latency and resolution.

    Args:
        network: Whose children.
        n: Number of children; a small space may have fewer.
        seed: Of the draw.
    """
    rng = Random(f"fit {seed}")
    ends = list(dict.fromkeys([network.smallest, network.largest]))[:n]
    pool = sorted({sample_genes(network.dims, rng) for _ in range(POOL)} - set(ends))
    if n <= len(ends) or not pool:
        return ends
    guessed = AdditiveCost(network, guessed_ms)(np.array(pool))
    strata = np.array_split(np.argsort(guessed, kind="stable"), n - len(ends))
    resolutions = sorted({network.resolution(genotype) for genotype in pool})
    chosen = []
    for number, stratum in enumerate(strata):
        wanted = resolutions[number % len(resolutions)]
        children = [pool[i] for i in stratum]
        fitting = [child for child in children if network.resolution(child) == wanted]
        if children:
            chosen.append(rng.choice(fitting or children))
    return ends + chosen


def anchors_of(network: "Network", fit: Collection[Genotype]) -> tuple[Genotype, ...]:
    """Some of the fit children, evenly spread from the quickest to the slowest by guess."""
    children = sorted(fit)
    order = np.argsort(AdditiveCost(network, guessed_ms)(np.array(children)), kind="stable")
    places = np.linspace(0, len(order) - 1, ANCHORS).round().astype(int)
    return tuple(dict.fromkeys(children[order[place]] for place in places))


def calibration_children(
    network: "Network", n: int, seed: int | str, exclude: Collection[Genotype]
) -> list[Genotype]:
    """Distinct children drawn uniformly from the whole space.

    Args:
        network: Whose children.
        n: Number of children; a small space may have fewer.
        seed: Of the draw.
        exclude: Children that were used for something else.
    """
    rng = Random(f"calibrate {seed}")
    drawn: dict[Genotype, None] = {}
    for _ in range(TRIES_PER_CHILD * n):
        if len(drawn) == n:
            break
        genotype = sample(network.dims, rng)
        if genotype not in exclude:
            drawn[genotype] = None
    return list(drawn)
