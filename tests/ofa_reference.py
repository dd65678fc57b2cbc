"""Once-for-All's MobileNetV3, naively: from the published description alone, on its own names.

Nothing of the package is used here. Names are those of `data/ofa_mbv3_w1.0_parameters.tsv`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]
Statistics = dict[str, tuple[Tensor, Tensor]]

STAGES = (
    # width, stride, activation, squeeze-excite
    (24, 2, "relu", False),
    (40, 2, "relu", True),
    (80, 2, "hswish", False),
    (112, 1, "hswish", True),
    (160, 2, "hswish", True),
)


def rounded(value: float) -> int:
    """To a multiple of 8, never below 90 %."""
    near = max(8, int(value + 4) // 8 * 8)
    return near if near >= 0.9 * value else near + 8


# --- a file --------------------------------------------------------------------------------------


def norm_shapes(prefix: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    shapes: Shapes = {f"{prefix}.{name}": (channels,) for name in vectors}
    return {**shapes, f"{prefix}.num_batches_tracked": ()}


def block_shapes(prefix: str, in_ch: int, out_ch: int, se: bool) -> Shapes:
    mid_ch = rounded(round(in_ch * 6))
    shapes: Shapes = {f"{prefix}.inverted_bottleneck.conv.conv.weight": (mid_ch, in_ch, 1, 1)}
    shapes |= norm_shapes(f"{prefix}.inverted_bottleneck.bn.bn", mid_ch)
    shapes[f"{prefix}.depth_conv.conv.5to3_matrix"] = (9, 9)
    shapes[f"{prefix}.depth_conv.conv.7to5_matrix"] = (25, 25)
    shapes[f"{prefix}.depth_conv.conv.conv.weight"] = (mid_ch, 1, 7, 7)
    shapes |= norm_shapes(f"{prefix}.depth_conv.bn.bn", mid_ch)
    if se:
        se_ch = rounded(mid_ch // 4)
        shapes[f"{prefix}.depth_conv.se.fc.reduce.weight"] = (se_ch, mid_ch, 1, 1)
        shapes[f"{prefix}.depth_conv.se.fc.reduce.bias"] = (se_ch,)
        shapes[f"{prefix}.depth_conv.se.fc.expand.weight"] = (mid_ch, se_ch, 1, 1)
        shapes[f"{prefix}.depth_conv.se.fc.expand.bias"] = (mid_ch,)
    shapes[f"{prefix}.point_linear.conv.conv.weight"] = (out_ch, mid_ch, 1, 1)
    return shapes | norm_shapes(f"{prefix}.point_linear.bn.bn", out_ch)


def file_shapes(width: float, classes: int) -> Shapes:
    """Every tensor of a published file."""
    first = rounded(16 * width)
    shapes: Shapes = {"first_conv.conv.weight": (first, 3, 3, 3)}
    shapes |= norm_shapes("first_conv.bn", first)
    shapes["blocks.0.conv.depth_conv.conv.weight"] = (first, 1, 3, 3)
    shapes |= norm_shapes("blocks.0.conv.depth_conv.bn", first)
    shapes["blocks.0.conv.point_linear.conv.weight"] = (first, first, 1, 1)
    shapes |= norm_shapes("blocks.0.conv.point_linear.bn", first)
    in_ch, number = first, 0
    for channels, _, _, se in STAGES:
        for _ in range(4):
            number += 1
            out_ch = rounded(channels * width)
            shapes |= block_shapes(f"blocks.{number}.conv", in_ch, out_ch, se)
            in_ch = out_ch
    last, features = rounded(960 * width), rounded(1280 * width)
    shapes["final_expand_layer.conv.weight"] = (last, in_ch, 1, 1)
    shapes |= norm_shapes("final_expand_layer.bn", last)
    shapes["feature_mix_layer.conv.weight"] = (features, last, 1, 1)
    shapes["classifier.linear.weight"] = (classes, features)
    shapes["classifier.linear.bias"] = (classes,)
    return shapes


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """A value for every tensor, of the size that a trained network has."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("_matrix"):
            state[name] = torch.eye(shape[0]) + noise / shape[0]
        elif len(shape) > 1:
            state[name] = noise * (2 / noise[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = 1 + 0.5 * noise.tanh()
        else:
            state[name] = name.endswith("weight") + 0.2 * noise
    return state


# --- the network ---------------------------------------------------------------------------------


def active(x: Tensor, kind: str) -> Tensor:
    return x.clamp(min=0) if kind == "relu" else x * (x + 3).clamp(0, 6) / 6


class Reference:
    """Logits of any child of a state dict.

    Norms use the batch's statistics, which `seen` collects by name, or those that are given.
    """

    def __init__(self, state: dict[str, Tensor], statistics: Statistics | None = None) -> None:
        self.state, self.statistics = state, statistics
        self.seen: Statistics = {}

    def norm(self, x: Tensor, name: str) -> Tensor:
        channels = int(x.shape[1])
        if self.statistics is None:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            self.seen[name] = mean, var
        else:
            mean, var = (value[:channels] for value in self.statistics[name])
        scale = self.state[f"{name}.weight"][:channels] / (var + 1e-5).sqrt()
        shift = self.state[f"{name}.bias"][:channels] - mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    def kernel(self, name: str, channels: int, size: int) -> Tensor:
        weight = self.state[f"{name}.conv.weight"][:channels]
        for old, new in ((7, 5), (5, 3)):
            if size < old:
                centre = weight[:, 0, 1:-1, 1:-1].reshape(channels, new * new)
                row = torch.einsum("ci,oi->co", centre, self.state[f"{name}.{old}to{new}_matrix"])
                weight = row.reshape(channels, 1, new, new)
        return weight

    def squeeze_excite(self, x: Tensor, name: str) -> Tensor:
        mid_ch = int(x.shape[1])
        se_ch = rounded(mid_ch // 4)
        reduce, expand = (f"{name}.fc.{layer}" for layer in ("reduce", "expand"))
        y = x.mean((2, 3), keepdim=True)
        y = F.conv2d(
            y, self.state[f"{reduce}.weight"][:se_ch, :mid_ch], self.state[f"{reduce}.bias"][:se_ch]
        )
        weight = self.state[f"{expand}.weight"][:mid_ch, :se_ch]
        y = F.conv2d(y.clamp(min=0), weight, self.state[f"{expand}.bias"][:mid_ch])
        return x * (y + 3).clamp(0, 6) / 6

    def block(self, x: Tensor, number: int, row: tuple, kernel: int, expand: int) -> Tensor:
        name, (_, stride, kind, se) = f"blocks.{number}.conv", row
        in_ch = int(x.shape[1])
        mid_ch = rounded(round(in_ch * expand))
        weight = self.state[f"{name}.inverted_bottleneck.conv.conv.weight"][:mid_ch]
        y = active(self.norm(F.conv2d(x, weight), f"{name}.inverted_bottleneck.bn.bn"), kind)
        weight = self.kernel(f"{name}.depth_conv.conv", mid_ch, kernel)
        y = F.conv2d(y, weight, stride=stride, padding=kernel // 2, groups=mid_ch)
        y = active(self.norm(y, f"{name}.depth_conv.bn.bn"), kind)
        if se:
            y = self.squeeze_excite(y, f"{name}.depth_conv.se")
        weight = self.state[f"{name}.point_linear.conv.conv.weight"][:, :mid_ch]
        y = self.norm(F.conv2d(y, weight), f"{name}.point_linear.bn.bn")
        return x + y if stride == 1 and in_ch == y.shape[1] else y

    def first(self, x: Tensor) -> Tensor:
        """Stem and first block."""
        x = F.conv2d(x, self.state["first_conv.conv.weight"], stride=2, padding=1)
        x = active(self.norm(x, "first_conv.bn"), "hswish")
        name = "blocks.0.conv"
        weight = self.state[f"{name}.depth_conv.conv.weight"]
        y = F.conv2d(x, weight, padding=1, groups=x.shape[1])
        y = active(self.norm(y, f"{name}.depth_conv.bn"), "relu")
        y = F.conv2d(y, self.state[f"{name}.point_linear.conv.weight"])
        return x + self.norm(y, f"{name}.point_linear.bn")

    def last(self, x: Tensor) -> Tensor:
        """Final expansion, pool, feature mix, classifier."""
        x = F.conv2d(x, self.state["final_expand_layer.conv.weight"])
        x = active(self.norm(x, "final_expand_layer.bn"), "hswish").mean((2, 3), keepdim=True)
        x = active(F.conv2d(x, self.state["feature_mix_layer.conv.weight"]), "hswish")
        weight, bias = (self.state[f"classifier.linear.{name}"] for name in ("weight", "bias"))
        return F.linear(x[:, :, 0, 0], weight, bias)

    def __call__(self, x: Tensor, settings: dict) -> Tensor:
        """Of the child with these settings, its first stage being the first block."""
        x = self.first(x)
        per_stage = zip(
            STAGES,
            settings["depth"][1:],
            settings["kernel"][1:],
            settings["expand"][1:],
            strict=True,
        )
        for stage, (row, depth, kernels, expands) in enumerate(per_stage):
            for position in range(depth):
                stride = row[1] if position == 0 else 1
                here = (row[0], stride, *row[2:])
                number = 1 + 4 * stage + position
                x = self.block(x, number, here, kernels[position], expands[position])
        return self.last(x)


# --- names in published files --------------------------------------------------------------------


def spellings(name: str) -> Iterator[str]:
    """The names under which a tensor is found in one file or another."""
    yield name
    yield name.replace(".bn.bn.", ".bn.")
    yield name.replace(".conv.conv.weight", ".conv.weight")
    old = name.replace(".bn.bn.", ".bn.").replace(".bn.", ".bn.bn.")
    old = old.replace(".conv.conv.weight", ".conv.weight").replace(
        ".conv.weight", ".conv.conv.weight"
    )
    yield old.replace(".linear.", ".linear.linear.")
    if name.startswith("blocks."):
        parts = name.split(".")
        yield ".".join([*parts[:2], "mobile_inverted_conv", *parts[3:]])
    else:
        yield name
