"""Latency tables of Once-for-All and ProxylessNAS.

Keys are those that their code looks up: https://github.com/mit-han-lab/once-for-all,
``ofa/nas/efficiency_predictor/latency_lookup_table.py``. With ``se`` and ``hs`` in its keys, a
table is of MobileNetV3s; without, of ProxylessNAS's networks, whose ReLU6 counts as ReLU.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elastic_nas.errors import ConfigError, TableError
from elastic_nas.latency.foreign import Figure, Foreign, Part, checked_ms, means
from elastic_nas.latency.rows import MAX_DIMENSION
from elastic_nas.specs import BlockSpec
from elastic_nas.specs.classifier import ClassifierSpec
from elastic_nas.specs.conv import ConvSpec
from elastic_nas.specs.head import HeadSpec
from elastic_nas.specs.mbconv import MBConvSpec
from elastic_nas.specs.shapes import round8
from elastic_nas.yaml_file import read_yaml

EXPANDS = ("channels", "ratio")
MAX_RATIO = 16

_KEY = re.compile(
    r"(?P<kind>Conv|Conv_1|Conv_2|AvgPool2D|Logits|expanded_conv)"
    r"-input:[0-9]{1,6}x[0-9]{1,6}x(?P<inputs>[0-9]{1,6})"
    r"-output:([0-9]{1,6}x[0-9]{1,6}x)?(?P<outputs>[0-9]{1,6})"
    r"(-expand:(?P<expand>[0-9]{1,6})-kernel:[0-9]{1,3}-stride:[0-9]{1,3}-idskip:[01]"
    r"(-se:[01]-hs:[01])?)?"
)


def read_ofa(files: Iterable[Path], expand: str | None) -> Foreign:
    """YAML files of rows such as ``Conv-input:160x160x3-output:80x80x24: {mean: 0.5, count: 498}``.

    Args:
        files: As of one resolution each; what stands in several is averaged.
        expand: What ``expand`` means in its keys: a number of ``channels``, as in Once-for-All's
            tables, or a ``ratio``, as in ProxylessNAS's.

    Raises:
        ConfigError: A file cannot be read, or `expand` cannot be what its keys say.
        TableError: A row is no figure.
    """
    pairs: list[tuple[Part, Figure]] = []
    unread = Counter[str]()
    for path in files:
        for key, row in _rows(path).items():
            if _KEY.fullmatch(key):
                pairs.append((key, _figure(row, f"{path}, {key}")))
            else:
                unread[key[:60]] += 1
    keys = _Keys([str(key) for key, _ in pairs], expand)
    return Foreign("OFA-style YAML", means(pairs), keys.of, unread)


def _rows(path: Path) -> dict[str, Any]:
    rows = read_yaml(path)
    if not isinstance(rows, dict):
        raise TableError(f"{path} holds no rows such as 'Conv-input:...: {{mean: 0.5}}'.")
    return {str(key): row for key, row in rows.items()}


def _figure(row: Any, place: str) -> Figure:
    values = row if isinstance(row, dict) else {}
    count = values.get("count")
    if count is not None and (type(count) is not int or not 1 <= count < MAX_DIMENSION):
        raise TableError(f"{place}: count must be a whole number from 1 to {MAX_DIMENSION - 1}.")
    return Figure(checked_ms(values.get("mean"), place), count)


def _check_expand(rows: Iterable[re.Match[str]], expand: str | None) -> None:
    """Refuse a meaning that no network has: nothing shrinks, nor grows more than 16-fold."""
    if expand not in EXPANDS:
        raise ConfigError(
            "an OFA-style table needs the meaning of expand in its keys: channels (expand:96, as "
            "in Once-for-All's) or ratio (expand:4, as in ProxylessNAS's)."
        )
    for match in rows:
        if match["expand"] is None:
            continue
        value, inputs = int(match["expand"]), int(match["inputs"])
        if not (value >= inputs if expand == "channels" else 1 <= value <= MAX_RATIO):
            other = EXPANDS[1 - EXPANDS.index(expand)]
            channels = value if expand == "channels" else value * inputs
            raise ConfigError(
                f"expand cannot mean {expand} in this table: {match[0]} would make {channels} "
                f"channels of {inputs}. Say {other}."
            )


class _Keys:
    """Writes the keys that Once-for-All's code would look up for a block."""

    def __init__(self, known: Iterable[str], expand: str | None) -> None:
        rows = [match for match in map(_KEY.fullmatch, dict.fromkeys(known)) if match]
        _check_expand(rows, expand)
        self.is_ratio = expand == "ratio"
        self.is_v3 = any("-se:" in match[0] for match in rows)
        self.activation = "hswish" if self.is_v3 else "relu"
        self._logits: dict[tuple[int, int], list[str]] = {}
        for match in rows:
            if match["kind"] == "Logits":
                ends = int(match["inputs"]), int(match["outputs"])
                self._logits.setdefault(ends, []).append(match[0])

    def of(self, spec: BlockSpec) -> tuple[Part, ...]:
        """The keys of a block's parts; none where there are no such blocks."""
        match spec:
            case ConvSpec(in_ch=3, kernel=3, stride=2, activation=self.activation):
                return (_key("Conv", spec.input_shape, spec.output_shape),)
            case MBConvSpec():
                return self._mbconv(spec)
            case HeadSpec(activation=self.activation):
                return self._head(spec)
            case ClassifierSpec():
                # ProxylessNAS's begin with pooling: of several maps, each takes another time
                keys = self._logits.get((spec.in_features, spec.out_features), [])
                return tuple(keys) if len(keys) == 1 else ()
        return ()

    def _mbconv(self, spec: MBConvSpec) -> tuple[Part, ...]:
        ratio, rest = divmod(spec.mid_ch, spec.in_ch)
        same = spec.stride == 1 and spec.in_ch == spec.out_ch
        if spec.has_shortcut != same or (self.is_ratio and rest):
            return ()
        expand = ratio if self.is_ratio else spec.mid_ch
        key = (
            f"{_key('expanded_conv', spec.input_shape, spec.output_shape)}-expand:{expand}"
            f"-kernel:{spec.kernel}-stride:{spec.stride}-idskip:{int(same)}"
        )
        if not self.is_v3:
            return (key,) if (spec.se_ch, spec.activation) == (0, "relu") else ()
        squeezed = spec.se_ch == 0 or (spec.se_ch, spec.gate) == (
            round8(spec.mid_ch // 4),
            "hsigmoid",
        )
        if not squeezed or spec.activation not in ("relu", "hswish"):
            return ()
        return (f"{key}-se:{int(spec.se_ch > 0)}-hs:{int(spec.activation == 'hswish')}",)

    def _head(self, spec: HeadSpec) -> tuple[Part, ...]:
        middle, pooled = (spec.mid_ch, spec.height, spec.width), (spec.mid_ch, 1, 1)
        conv = _key("Conv_1", spec.input_shape, middle)
        if not self.is_v3:  # the pooling is in Logits
            return () if spec.hidden_ch else (conv,)
        parts = (conv, _key("AvgPool2D", middle, pooled))
        if not spec.hidden_ch:
            return parts
        return (*parts, _key("Conv_2", pooled, (spec.hidden_ch, 1, 1)))


def _key(kind: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> str:
    """The beginning of a key, whose shapes are height, width, channels."""
    before, after = ("x".join(map(str, (*shape[1:], shape[0]))) for shape in (inputs, outputs))
    return f"{kind}-input:{before}-output:{after}"
