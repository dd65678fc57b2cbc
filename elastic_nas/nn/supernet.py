"""The supernet: shared weights for every child, the child being an argument of the call."""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elastic_nas.genotype import Genotype
from elastic_nas.nn.child import Child
from elastic_nas.specs import BlockSpec, Unit
from elastic_nas.specs.mbconv import MBConvSpec


def resize(x_NCHW: Tensor, resolution: int) -> Tensor:
    """Square images at another resolution: bilinear with antialiasing, as Pillow resizes."""
    if x_NCHW.shape[-1] == resolution:
        return x_NCHW
    return F.interpolate(
        x_NCHW, (resolution, resolution), mode="bilinear", align_corners=False, antialias=True
    )


class Supernet(nn.Module):
    """One elastic module per unit.

    Args:
        units: The positions of the network, in order.
        seed: Of the initial weights; the global generator is left alone.
    """

    def __init__(self, units: Sequence[Unit], seed: int = 0) -> None:
        super().__init__()
        self.units = tuple(units)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.blocks = nn.ModuleDict(
                {unit.name.replace(".", "_"): _elastic(unit) for unit in self.units}
            )

    def _active(self, genotype: Genotype) -> list[tuple[str, nn.Module, BlockSpec]]:
        """Name, elastic module and spec of each block that this child has."""
        rows = zip(self.units, self.blocks.values(), strict=True)
        specs = ((unit.name, module, unit.spec(genotype)) for unit, module in rows)
        return [(name, module, spec) for name, module, spec in specs if spec is not None]

    def forward(
        self,
        x_NCHW: Tensor,
        genotype: Genotype,
        *,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        drop_connect_stages: int | None = None,
    ) -> Tensor:
        """Logits (N, classes) of one child, on batch statistics.

        Args:
            x_NCHW: Normalised images, square, of any size; resized to the child's resolution.
            genotype: The child.
            dropout: Rate before the classifier.
            drop_connect: Rate of the last residual block; see `drop_rates`.
            drop_connect_stages: Drop-connect in so many last stages only; None: in all.
        """
        active = self._active(genotype)
        rates = self.drop_rates(genotype, drop_connect, drop_connect_stages) if drop_connect else {}
        x = resize(x_NCHW, active[0][2].input_shape[-1])
        for name, module, spec in active:
            options: dict[str, Any] = {}
            if name in rates:
                options["drop_connect"] = rates[name]
            elif spec.kind == "classifier" and dropout:
                options["dropout"] = dropout
            x = module(x, spec, **options)
        return x

    def drop_rates(
        self, genotype: Genotype, last: float, stages: int | None = None
    ) -> dict[str, float]:
        """Drop-connect's rate in each residual block of a child, by name.

        Of n blocks whose shortcut is their input itself, the k-th bears `last` x k / n: the last
        one bears `last`. Blocks with a pooled or projected shortcut bear none and do not count.
        (AttentiveNAS counts all blocks of its largest network from 0, so that its last one bears
        36/37 of the rate; EfficientNet does the same with its own blocks.)

        Args:
            genotype: The child.
            last: The last block's rate.
            stages: Only so many last stages bear their rates; None: all.
        """
        residual = [
            name
            for name, _, spec in self._active(genotype)
            if isinstance(spec, MBConvSpec) and spec.keeps_input
        ]
        dropping = self._last_stages(stages)
        return {
            name: last * (number / len(residual))  # the last one's is exact in this order
            for number, name in enumerate(residual, start=1)
            if _stage(name) in dropping
        }

    def _last_stages(self, count: int | None) -> list[str]:
        stages = list(dict.fromkeys(_stage(u.name) for u in self.units if "." in u.name))
        return stages if count is None else stages[-count:]

    def slice(self, genotype: Genotype) -> Child:
        """The child as plain modules with its own weights; its norms await calibration."""
        blocks: dict[str, nn.Module] = {}
        for name, module, spec in self._active(genotype):
            blocks[name] = module.slice(spec)  # type: ignore[operator]
        return Child(blocks)


def _stage(unit: str) -> str:
    """``stage2`` of ``stage2.block1``."""
    return unit.partition(".")[0]


def _elastic(unit: Unit) -> nn.Module:
    """The elastic module for the specs that can stand at one position, all of one kind."""
    specs = list(unit.specs())
    sharing = {"kernel_transform": True} if unit.kernel_transform else {}
    module: nn.Module = _module_of(specs[0].kind).Elastic(specs, **sharing)
    return module


def plain(spec: BlockSpec) -> nn.Module:
    """The plain module that `spec` describes, freshly initialised."""
    module: nn.Module = _module_of(spec.kind).Plain(spec)
    return module


def _module_of(kind: str) -> Any:
    """The file that holds all that is known of a block kind: ``elastic_nas/nn/<kind>.py``."""
    return importlib.import_module(f"elastic_nas.nn.{kind}")
