"""Published supernets of Once-for-All's MobileNetV3: names, shapes and values checked, then ours.

The format: Cai et al., 2020, https://arxiv.org/abs/1908.09791; a dict with the key ``state_dict``,
as torch saves it. `torch_file` reads it: nothing in a file is executed.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from elastic_nas.errors import CheckpointError
from elastic_nas.network import MAX_CLASSES, Network
from elastic_nas.nn.supernet import Supernet
from elastic_nas.training.tensor_pickle import Described
from elastic_nas.training.torch_file import TorchFile, read_torch_file

LARGEST = 1000.0
"""No weight of a trained network comes near: a larger one was damaged."""

SHOWN = 3
"""Tensors that an error names at most."""

PREFIX = "module."
"""Before each name of a supernet that was saved within torch's DataParallel."""

_WIDTHS = {16: 1.0, 24: 1.2}
"""The stem's channels, and what all widths are multiplied by."""

_FEATURES = (1280, 1536)
"""The feature mix's channels at these widths; a stem of 24 channels has width 1.4, too."""

_OTHERS = (
    (
        re.compile(r"feature_mix_layer\.bn\."),
        "Once-for-All's ProxylessNAS supernet (as ofa_proxyless_d234_e346_k357_w1.3 is)",
    ),
    (
        re.compile(r"input_stem\.|blocks\.\d+\.conv[123]\."),
        "Once-for-All's ResNet50 supernet (as ofa_resnet50_d=0+1+2_e=0.2+0.25+0.35_w=0.65+0.8+1.0 "
        "is)",
    ),
)
"""Names that only other networks have, and what those are."""

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
        CheckpointError: The file is damaged, would build more than tensors, or is not exactly such
            a supernet; the message names the network that it is, or the tensors that are wrong.
    """
    if not os.path.exists(path):
        raise CheckpointError(f"there is no file {str(path)!r}; see docs/once_for_all.md.")
    file = read_torch_file(path)
    tensors = _tensors(path, file.value)
    network = _network(path, tensors)
    with torch.device("meta"):  # names and shapes alone: a file cannot ask for a large network
        wanted = network.supernet().state_dict()
    names = {ours: _published(ours) for ours in wanted}
    _check_names(path, tensors.keys(), names.values())
    for ours, expected in wanted.items():
        _check_shape(path, names[ours], tensors[names[ours]], tuple(expected.shape))
    found = {ours: _numbers(path, file, name, tensors[name]) for ours, name in names.items()}
    supernet = network.supernet()
    supernet.load_state_dict(found)
    return network, supernet


def _tensors(path: Path, loaded: object) -> dict[str, Described]:
    """Tensors by the shortest of the names that published files use; statistics left out."""
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(type(name) is str for name in state):
        raise CheckpointError(f"{path} holds no dict of tensors (or one under 'state_dict').")
    wrapped = all(name.startswith(PREFIX) for name in state)
    tensors: dict[str, Described] = {}
    for name, value in state.items():
        short = _shortest(name.removeprefix(PREFIX) if wrapped else name)
        if not isinstance(value, Described) or short in tensors:
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


def _network(path: Path, tensors: dict[str, Described]) -> Network:
    """The network by the shapes at its two ends; what lacks them is named later."""
    for names, network in _OTHERS:
        if any(names.match(name) for name in tensors):
            raise CheckpointError(
                f"{path} is {network}, another network, which cannot be read. Take a MobileNetV3 "
                "file: ofa_mbv3_d234_e346_k357_w1.0 or _w1.2."
            )
    features = _rows(tensors, "feature_mix_layer.conv.weight")
    if features is not None and features not in _FEATURES:
        raise CheckpointError(
            f"{path} is a supernet of width {features / 1280:.3g} ({features:,} channels at its "
            "end); widths 1.0 and 1.2 can be read: ofa_mbv3_d234_e346_k357_w1.0 and _w1.2."
        )
    stem = _rows(tensors, "first_conv.conv.weight")
    if stem not in (None, *_WIDTHS):
        raise CheckpointError(
            f"{path} has a stem of {stem} channels; known are 16 (width 1.0) and 24 (width 1.2)."
        )
    found = _rows(tensors, "classifier.linear.bias")
    classes = 1000 if found is None else found
    if not 2 <= classes <= MAX_CLASSES:
        raise CheckpointError(
            f"{path} tells {classes} classes apart; it must be 2 to {MAX_CLASSES}."
        )
    return Network(f"ofa_mobilenetv3:width={_WIDTHS[stem or 16]}", classes)


def _rows(tensors: dict[str, Described], name: str) -> int | None:
    found = tensors.get(name)
    return found.shape[0] if found and found.shape else None


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


def _check_shape(path: Path, name: str, found: Described, expected: tuple[int, ...]) -> None:
    if found.shape != expected:
        raise CheckpointError(
            f"{path}: {name} has the shape {found.shape}, not {expected}; nothing of the file was "
            "used."
        )


def _numbers(path: Path, file: TorchFile, name: str, described: Described) -> Tensor:
    """The values of one tensor, as far as a trained network can have them."""
    try:
        found = file.tensor(described)
    except ValueError as error:
        raise CheckpointError(f"{path}: {name} {error}; nothing of the file was used.") from error
    if not found.is_floating_point():
        problem = f"holds no plain numbers ({found.dtype})"
    elif not found.isfinite().all():
        problem = "holds numbers that are not finite"
    elif found.abs().max() > LARGEST:
        largest = found.abs().max().item()
        problem = f"holds {largest:.3g}, and weights of a trained network stay below {LARGEST:g}"
    else:
        return found
    raise CheckpointError(f"{path}: {name} {problem}; nothing of the file was used.")
