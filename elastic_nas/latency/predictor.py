"""Predicted latency of children, millions a second, and the bound that 95 % of them keep."""

import json
from copy import copy
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elastic_nas.additive import AdditiveCost
from elastic_nas.errors import ConfigError, TableError
from elastic_nas.latency.bound import LEVEL, LEVELS, least_children
from elastic_nas.latency.model import RAW, block_features
from elastic_nas.latency.self_check import check_model
from elastic_nas.latency.table import LatencyTable
from elastic_nas.specs import BlockSpec
from elastic_nas.specs.classifier import ClassifierSpec

if TYPE_CHECKING:
    from elastic_nas.network import Network

Floats = NDArray[np.float64]


class Predictor:
    """A table and its fitted model, for one network.

    A network of one child is predicted by the model of the whole space. The table is held against
    itself: see `self_check`.

    Args:
        network: Whose children are asked for.
        table: Of the device.
        stale: Why the table may not hold on this machine, or nothing; see `LatencyTable.stale`.
        level: The share of random children that keep the bound.

    Attributes:
        model: The fitted model.
        interpolated: Whether the classifier's figures are interpolated.
        digest: Of the model and of what the anchors took: it stays where the table learns of
            other spaces or classes, or is profiled again with nothing lacking.
        speed: The machine's speed now, in multiples of what the table's figures take.
        stale, level: As given.

    Raises:
        ConfigError: The level is none that can be promised.
        MissingEntries: The table lacks blocks of this network.
        TableError: It has no fitted model of this network, or one that contradicts its children.
    """

    def __init__(
        self,
        network: "Network",
        table: LatencyTable,
        *,
        stale: str = "",
        level: float = LEVEL,
    ) -> None:
        if not LEVELS[0] <= level <= LEVELS[1]:
            raise ConfigError(
                f"the level of a bound must be {LEVELS[0]:g} to {LEVELS[1]:g}, got {level:g}."
            )
        name = table.device["name"]
        specs = dict.fromkeys(spec for unit in network.units for spec in unit.specs())
        missing = table.missing(specs)
        whole = network.whole
        if missing:
            raise table.missing_error(missing, whole.space_name)
        if whole.identity not in table.models:
            raise TableError(
                f"the latency table of {name} has no fitted model of {whole.space_name}.\n"
                f"Make one: elastic-nas profile {name} --space {whole.space_name}"
            )
        self.model = table.models[whole.identity]
        self.stale, self.speed, self.level = stale, 1.0, level
        self._factor = self.model.bound_factor(level)
        self.interpolated = any(
            isinstance(spec, ClassifierSpec) and spec not in table.blocks for spec in specs
        )
        self._device, self._space = name, whole.space_name
        content = [table.provenance["anchors"].get(whole.identity), self.model.to_json()]
        self.digest = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

        def contribution_ms(spec: BlockSpec) -> float:
            return self.model.block_ms(block_features(spec, table.entry_ms(spec)[0]))

        check_model(whole, table)
        self._cost = AdditiveCost(network, contribution_ms)
        self.predict_ms(np.array([network.smallest, network.largest]))

    def told(
        self, *, stale: str = "", speed: float = 1.0, also: tuple[float, ...] = ()
    ) -> "Predictor":
        """The same predictor, knowing more of this machine.

        Args:
            stale: Why the table may not hold here, or nothing.
            speed: The machine's speed now, in multiples of what the table's figures take.
            also: Measured over predicted of children that join the calibration of the bound.
        """
        other = copy(self)
        other.stale, other.speed = stale, speed
        other._factor = self.model.bound_factor(self.level, also)
        return other

    @property
    def promise(self) -> bool:
        """Whether `bound_ms` is a promise: a bound was calibrated, on a machine like this one."""
        return self._factor is not None and not self.stale

    @property
    def unfitted(self) -> bool:
        """Whether predictions are bare sums of the table's entries, which are biased."""
        return self.model.kind == RAW

    @property
    def unbounded(self) -> bool:
        """Whether no child was measured that a bound could be taken on."""
        return not self.model.ratios

    def predict_ms(self, genotypes: NDArray[np.integer]) -> Floats:
        """Predicted latencies, which half of the children exceed: (n, genes) to (n,), in ms.

        Raises:
            GenotypeError: The genotypes do not fit the network.
            TableError: A prediction is not positive: the table's figures do not go together.
        """
        ms = self.speed * (self._cost(genotypes) + self.model.constant_ms)
        if not (ms > 0).all():
            raise TableError(
                f"the latency table of {self._device} predicts {ms.min():.3g} ms for a child of "
                f"{self._space}, which cannot be.\nMove it away and measure anew: elastic-nas "
                f"profile {self._device} --space {self._space}"
            )
        return ms

    def bound_ms(self, genotypes: NDArray[np.integer]) -> Floats:
        """Latencies that a share `level` of random children do not exceed: (n, genes) to (n,).

        In ms. Look at `promise`: where the table is stale, this is an estimate; where it is
        `unbounded`, the prediction itself.

        Raises:
            TableError: Too few children were measured to state a bound.
            GenotypeError: The genotypes do not fit the network.
        """
        if self.unbounded:
            return self.predict_ms(genotypes)
        if self._factor is None:
            raise TableError(
                f"too few children of {self._space} were measured on {self._device} for a bound "
                f"of {self.level:.1%}: {self.model.n_calibrate}, but it takes "
                f"{least_children(self.level)}.\n"
                f"Measure more: elastic-nas profile {self._device} --space {self._space}"
            )
        return self.predict_ms(genotypes) * self._factor
