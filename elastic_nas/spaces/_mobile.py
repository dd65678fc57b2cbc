"""What the mobile spaces share: from a table of stages to dims and units.

A space file states its table (`Trunk`); the elastic dimensions and the block at each
position follow from it.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

from elastic_nas.errors import ConfigError
from elastic_nas.genotype import Dim, Dims
from elastic_nas.specs.block import BlockSpec
from elastic_nas.specs.conv import ConvSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec
from elastic_nas.specs.shapes import round8, strided
from elastic_nas.specs.unit import Unit

ACTIVATIONS = ("relu", "hswish")


@dataclass(frozen=True)
class Stage:
    """One stage of MBConvs: the choices of a row in the space's table.

    The activation is the trunk's, unless the stage has its own.
    """

    stride: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    se: bool
    activation: str = ""


@dataclass(frozen=True)
class Trunk:
    """The table of a mobile space.

    Attributes:
        resolutions: Input height = width, pixels.
        stem: Choices of the stem's width.
        stem_stride: 2 in ImageNet networks, 1 for small images.
        head: Choices of the head's last width.
        head_expand: 0: the head is one 1x1 convolution to the last width. Else it expands the
            last stage's width by this, and a hidden layer reaches the last width.
        per_block: Kernel and expand are drawn per block; else per stage.
        squeeze_of: Squeeze width is a quarter of the block's ``input`` or ``expanded`` width.
        gate: Squeeze-excite's gate, ``sigmoid`` or ``hsigmoid``.
        shortcut: Of the MBConvs: see `MBConvSpec`.
        kernel_transform: Whether smaller kernels are learned functions of larger ones.
    """

    resolutions: tuple[int, ...]
    stem: tuple[int, ...]
    stem_stride: int
    stages: tuple[Stage, ...]
    head: tuple[int, ...]
    head_expand: int
    per_block: bool
    squeeze_of: str
    activation: str
    gate: str
    shortcut: str = "projected"
    kernel_transform: bool = False


@dataclass(frozen=True)
class MobileSpace:
    """Base of the mobile spaces; a subclass's fields are its options and part of its identity."""

    @property
    def trunk(self) -> Trunk:
        """The table of this space."""
        raise NotImplementedError(f"{type(self).__module__} states no table")

    @property
    def name(self) -> str:
        """The text form with all options, e.g. ``tiny:size=16,activation=relu``."""
        options = ",".join(f"{key}={value}" for key, value in asdict(self).items())
        base = type(self).__module__.rpartition(".")[2]
        return f"{base}:{options}" if options else base

    @cached_property
    def dims(self) -> Dims:
        """All elastic dimensions: resolution, stem, then stage by stage, then the head."""
        trunk = self.trunk
        dims = [Dim("resolution", trunk.resolutions), Dim("stem.width", trunk.stem)]
        for number, stage in enumerate(trunk.stages, 1):
            name, depth_at = f"stage{number}", len(dims) + 1
            dims += [Dim(f"{name}.width", stage.widths), Dim(f"{name}.depth", stage.depths)]
            for block in range(1, stage.depths[-1] + 1) if trunk.per_block else (1,):
                least = next(i for i, depth in enumerate(stage.depths) if depth >= block)
                needs = (depth_at, least) if least else None
                prefix = f"{name}.block{block}" if trunk.per_block else name
                dims.append(Dim(f"{prefix}.kernel", stage.kernels, needs))
                dims.append(Dim(f"{prefix}.expand", stage.expands, needs))
        dims.append(Dim("head.width", trunk.head))
        return tuple(dims)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Every position in the trunk, from stem to head."""
        at = {dim.name: position for position, dim in enumerate(self.dims)}
        trunk = self.trunk

        def unit(name: str, genes: tuple[str, ...], build: Callable[..., BlockSpec | None]) -> Unit:
            places = tuple(at[gene] for gene in genes)
            transformed = trunk.kernel_transform and name not in ("stem", "head")
            return Unit(name, places, self.dims, build, kernel_transform=transformed)

        return tuple(unit(*row) for row in _rows(trunk))


_Row = tuple[str, tuple[str, ...], Callable[..., BlockSpec | None]]


def _rows(trunk: Trunk) -> Iterator[_Row]:
    """Name, genes and builder of each position, from stem to head."""

    def stem(resolution: int, width: int) -> ConvSpec:
        return ConvSpec(resolution, resolution, 3, width, 3, trunk.stem_stride, trunk.activation)

    yield "stem", ("resolution", "stem.width"), stem
    strides: tuple[int, ...] = (trunk.stem_stride,)
    before = "stem.width"
    for number, stage in enumerate(trunk.stages, 1):
        name = f"stage{number}"
        for block in range(1, stage.depths[-1] + 1):
            prefix = f"{name}.block{block}" if trunk.per_block else name
            genes = {"resolution": "resolution"}
            if block == 1:
                genes["in_ch"] = before
            genes["width"] = f"{name}.width"
            if block > stage.depths[0]:
                genes["depth"] = f"{name}.depth"
            genes |= {"kernel": f"{prefix}.kernel", "expand": f"{prefix}.expand"}
            build = _mbconv(trunk, stage, strides, block, tuple(genes))
            yield f"{name}.block{block}", tuple(genes.values()), build
            strides = (*strides, stage.stride if block == 1 else 1)
        before = f"{name}.width"

    def head(resolution: int, in_ch: int, width: int) -> HeadSpec:
        size = _size(resolution, strides)
        if trunk.head_expand:
            mid_ch = round8(in_ch * trunk.head_expand)
            return HeadSpec(size, size, in_ch, mid_ch, width, trunk.activation)
        return HeadSpec(size, size, in_ch, width, 0, trunk.activation)

    yield "head", ("resolution", before, "head.width"), head


def _mbconv(
    trunk: Trunk, stage: Stage, strides: tuple[int, ...], block: int, names: tuple[str, ...]
) -> Callable[..., MBConvSpec | None]:
    """Builder of the `block`-th block of a stage, behind layers of the given strides.

    `names` are those of the builder's arguments: a later block has no ``in_ch`` of its own, and a
    block that every child has no ``depth``.
    """

    def build(*values: int) -> MBConvSpec | None:
        choice = dict(zip(names, values, strict=True))
        if choice.get("depth", block) < block:
            return None
        width, expand = choice["width"], choice["expand"]
        in_ch = choice.get("in_ch", width)
        size = _size(choice["resolution"], strides)
        mid_ch = in_ch if expand == 1 else round8(round(in_ch * expand))
        squeezed = in_ch // 4 if trunk.squeeze_of == "input" else round8(mid_ch // 4)
        return MBConvSpec(
            height=size,
            width=size,
            in_ch=in_ch,
            mid_ch=mid_ch,
            out_ch=width,
            kernel=choice["kernel"],
            stride=stage.stride if block == 1 else 1,
            se_ch=squeezed if stage.se else 0,
            expanded=expand != 1,
            activation=stage.activation or trunk.activation,
            gate=trunk.gate,
            shortcut=trunk.shortcut,
        )

    return build


def _size(resolution: int, strides: tuple[int, ...]) -> int:
    for stride in strides:
        resolution = strided(resolution, stride)
    return resolution


def check_activation(activation: str) -> None:
    """Refuse an activation that is no option of the small spaces.

    Raises:
        ConfigError: It is neither ``relu`` nor ``hswish``.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation must be relu or hswish, got {activation!r}.")
