"""Published supernets of Once-for-All's MobileNetV3: names, shapes and values checked, then ours.

The format: Cai et al., 2020, https://arxiv.org/abs/1908.09791; a dict with the key ``state_dict``,
as torch saves it. It is read with ``weights_only=True``: nothing in a file is executed.
"""

import re
from collections.abc import Collection
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

from elastic_nas.errors import CheckpointError
from elastic_nas.network import Network
from elastic_nas.nn.supernet import Supernet

MOST_BYTES = 1 << 30
"""Unpacked; published files have some 40 MB."""

SHOWN = 3
"""Tensors that an error names at most."""

_WIDTHS = {16: 1.0, 24: 1.2}
"""The stem's channels, and what all widths are multiplied by."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Of the largest child alone; every child is calibrated, so that a supernet needs none."""

_ENDS = {
    "stem.conv": "first_conv.conv",
    "stem.norm": "first_conv.bn",
    "head.conv": "final_expand_layer.conv",
    "head.norm": "final_expand_layer.bn",
    "head.hidden": "feature_mix_layer.conv",
    "classifier.linear": "classifier.linear",
}
_LAYERS = {
    "expand": "inverted_bottleneck.conv",
    "expand_norm": "inverted_bottleneck.bn",
    "depthwise": "depth_conv.conv",
    "depthwise_norm": "depth_conv.bn",
    "squeeze": "depth_conv.se.fc.reduce",
    "excite": "depth_conv.se.fc.expand",
    "project": "point_linear.conv",
    "project_norm": "point_linear.bn",
}
_MATRICES = {"to_kernel.5": "7to5_matrix", "to_kernel.3": "5to3_matrix"}


def read_ofa(path: Path) -> tuple[Network, Supernet]:
    """The network and the supernet that a published file holds.

    Raises:
        CheckpointError: The file cannot be read without executing something of it, or is not
            exactly such a supernet; the message names the tensors that are wrong.
    """
    tensors = _tensors(path, _load(path))
    network = _network(path, tensors)
    supernet = network.supernet()
    names = {ours: _published(ours) for ours in supernet.state_dict()}
    _check_names(path, tensors.keys(), names.values())
    found = {ours: tensors[theirs] for ours, theirs in names.items()}
    for ours, expected in supernet.state_dict().items():
        _check_tensor(path, names[ours], found[ours], expected)
    supernet.load_state_dict(found)
    return network, supernet


def _load(path: Path) -> object:
    """What torch finds in a file, of tensors and plain containers alone."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {str(path)!r}; see docs/once_for_all.md.")
    try:
        size = _unpacked_size(path)
        if size <= MOST_BYTES:
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: torch's readers let errors of bad bytes through
        raise CheckpointError(
            f"{path} is no checkpoint that torch saved, is damaged, or holds more than tensors "
            f"({type(error).__name__}); nothing of it was executed or used. Download it again."
        ) from error
    raise CheckpointError(
        f"{path} holds {size:,} bytes; a published supernet has some 40 MB, and more than "
        f"{MOST_BYTES:,} bytes are not read."
    )


def _unpacked_size(path: Path) -> int:
    if not is_zipfile(path):
        return path.stat().st_size
    with ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    """Tensors by the shortest of the names that published files use; statistics left out."""
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(type(name) is str for name in state):
        raise CheckpointError(f"{path} holds no dict of tensors (or one under 'state_dict').")
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        short = _shortest(name)
        if not isinstance(value, Tensor) or short in tensors:
            what = "appears twice" if short in tensors else f"is a {type(value).__name__}"
            raise CheckpointError(f"{path}: {name!r} {what}, where one tensor must be.")
        if not name.endswith(_STATISTICS):
            tensors[short] = value
    return tensors


def _shortest(name: str) -> str:
    """``blocks.1.conv.bn.weight`` for ``blocks.1.mobile_inverted_conv.bn.bn.weight``."""
    parts = name.replace("mobile_inverted_conv", "conv").split(".")
    before = ["", *parts]
    return ".".join(part for part, last in zip(parts, before, strict=False) if part != last)


def _network(path: Path, tensors: dict[str, Tensor]) -> Network:
    """The network by the shapes at its two ends; what lacks them is named later."""
    if "feature_mix_layer.bn.weight" in tensors:
        raise CheckpointError(
            f"{path} is Once-for-All's ProxylessNAS supernet (as ofa_proxyless_d234_e346_k357_w1.3 "
            "is), another network, which cannot be read. Take a MobileNetV3 file: "
            "ofa_mbv3_d234_e346_k357_w1.0 or _w1.2."
        )
    stem, classes = (
        _rows(tensors, "first_conv.conv.weight"),
        _rows(tensors, "classifier.linear.bias"),
    )
    if stem not in (None, *_WIDTHS):
        raise CheckpointError(
            f"{path} has a stem of {stem} channels; known are 16 (width 1.0) and 24 (width 1.2)."
        )
    width = _WIDTHS.get(stem or 16)
    return Network(f"ofa_mobilenetv3:width={width}", 1000 if classes is None else classes)


def _rows(tensors: dict[str, Tensor], name: str) -> int | None:
    found = tensors.get(name)
    return None if found is None or found.dim() == 0 else found.shape[0]


def _published(name: str) -> str:
    """Once-for-All's shortest name for a parameter of ours."""
    _, unit, layer, leaf = name.split(".", 3)
    leaf = _MATRICES.get(leaf, leaf.partition("_")[0])
    if f"{unit}.{layer}" in _ENDS:
        return f"{_ENDS[f'{unit}.{layer}']}.{leaf}"
    stage, block = (int(number) for number in re.findall(r"\d+", unit))
    index = 4 * (stage - 2) + block if stage > 1 else 0
    return f"blocks.{index}.conv.{_LAYERS[layer]}.{leaf}"


def _check_names(path: Path, found: Collection[str], wanted: Collection[str]) -> None:
    lacking = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in set(wanted)]
    if lacking or unknown:
        parts = (("lacks", lacking), ("holds unknown", unknown))
        says = "; ".join(f"it {verb} {_some(names)}" for verb, names in parts if names)
        raise CheckpointError(f"{path} is no Once-for-All supernet of MobileNetV3: {says}.")


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more tensors" if rest > 0 else "")


def _check_tensor(path: Path, name: str, found: Tensor, expected: Tensor) -> None:
    dense = found.layout is torch.strided and not found.is_meta and found.is_floating_point()
    if found.shape != expected.shape:
        problem = f"has the shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    elif not dense:
        problem = f"holds no plain numbers ({found.dtype}, {found.layout})"
    elif not found.isfinite().all():
        problem = "holds numbers that are not finite"
    else:
        return
    raise CheckpointError(f"{path}: {name} {problem}; nothing of the file was used.")
