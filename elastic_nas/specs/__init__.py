"""Block specs: one frozen dataclass per block kind, the one description of a network.

Shapes, MACs, parameters, bytes and the key of a latency table's entry all derive from here;
nothing in this package needs torch.
"""

from elastic_nas.specs.block import BlockSpec, Costs, spec_from_key, spec_kinds
from elastic_nas.specs.unit import Unit

__all__ = ["BlockSpec", "Costs", "Unit", "spec_from_key", "spec_kinds"]
