"""Kernel latencies as nn-Meter's builder writes them.

See https://github.com/microsoft/nn-Meter, docs/builder/build_kernel_latency_predictor.md. Its
authors found that kernels with one convolution take as long whatever norm and activation follow,
and measure one of them for all; so a convolution's figure here is that of any such kernel.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from elastic_nas.errors import TableError
from elastic_nas.latency.foreign import Figure, Foreign, Part, Row, cell_count, cell_ms, means
from elastic_nas.specs import BlockSpec
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.conv import ConvSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec

_NAME = re.compile(r"[a-z0-9-]+")

_COLUMNS = {
    "conv": ("HW", "CIN", "COUT", "KERNEL_SIZE", "STRIDES"),
    "dwconv": ("HW", "CIN", "KERNEL_SIZE", "STRIDES"),
    "se": ("HW", "CIN"),
    "add": ("HW", "CIN"),
    "global-avgpool": ("HW", "CIN"),
    "fc": ("CIN", "COUT"),
}
"""What tells the kernels apart that blocks of ours are made of."""


def read_kernels(rows: Iterable[Row]) -> Foreign:
    """Rows with nn-Meter's columns: ``model_path`` or ``kernel``, ``HW``, ``CIN``, ``latency``, ...

    Raises:
        TableError: A row is no figure, or says neither its kernel nor its sizes.
    """
    figures, unread = [], Counter[str]()
    for place, row in rows:
        name = _kernel_name(row, place)
        kind = name.split("-")[0] if name.startswith(("conv", "dwconv")) else name
        figure = Figure(cell_ms(row, "latency", place))
        if kind in _COLUMNS:
            sizes = (cell_count(row, column, place) for column in _COLUMNS[kind])
            figures.append(((kind, *sizes), figure))
        else:
            unread[name[:60]] += 1
    return Foreign("nn-Meter's CSV", means(figures), _kernels_of, unread)


def _kernel_name(row: Mapping[str, str], place: str) -> str:
    """``conv-bn-relu``, of a file called ``conv-bn-relu_4aq1.tflite``."""
    match = _NAME.match(row.get("kernel") or row.get("model_path", ""))
    if match is None:
        raise TableError(f"{place}: model_path must begin with a kernel's name: conv-bn-relu_1.")
    return match[0]


def _kernels_of(spec: BlockSpec) -> tuple[Part, ...]:
    """The kernels of a block; there are none with swish, nor of AttentiveNAS's shortcuts."""
    if isinstance(spec, ClassifierSpec):
        return (("fc", spec.in_features, spec.out_features),)
    if not isinstance(spec, ConvSpec | HeadSpec | MBConvSpec):
        return ()
    if spec.height != spec.width or spec.activation not in ("relu", "hswish"):
        return ()
    match spec:
        case ConvSpec():
            return (("conv", spec.height, spec.in_ch, spec.out_ch, spec.kernel, spec.stride),)
        case HeadSpec():
            conv = ("conv", spec.height, spec.in_ch, spec.mid_ch, 1, 1)
            hidden = [("conv", 1, spec.mid_ch, spec.hidden_ch, 1, 1)] if spec.hidden_ch else []
            return (conv, ("global-avgpool", spec.height, spec.mid_ch), *hidden)
        case MBConvSpec():
            return _mbconv_kernels(spec)


def _mbconv_kernels(spec: MBConvSpec) -> tuple[Part, ...]:
    same = spec.stride == 1 and spec.in_ch == spec.out_ch
    if spec.has_shortcut != same or spec.se_ch not in (0, spec.mid_ch // 4):
        return ()
    area = spec.output_shape[1]
    parts: list[Part] = [
        ("dwconv", spec.height, spec.mid_ch, spec.kernel, spec.stride),
        ("conv", area, spec.mid_ch, spec.out_ch, 1, 1),
    ]
    if spec.expanded:
        parts.append(("conv", spec.height, spec.in_ch, spec.mid_ch, 1, 1))
    if spec.se_ch:
        parts.append(("se", area, spec.mid_ch))
    if same:
        parts.append(("add", area, spec.out_ch))
    return tuple(parts)
