"""Published Once-for-All supernets: the same outputs as a naive reference, whatever the child."""

import json
import re
import shlex
import warnings
from collections import OrderedDict
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from ofa_reference import Reference, Statistics, file_shapes, random_state, spellings
from PIL import Image
from small_run import DEVICE, cli, done, refused, table_of_here
from torch import nn

from elastic_nas.errors import CheckpointError, ConfigError
from elastic_nas.files import sha256_of
from elastic_nas.genotype import Genotype, count, sample
from elastic_nas.network import Network
from elastic_nas.nn.child import Child
from elastic_nas.nn.layers import ElasticConv2d
from elastic_nas.nn.supernet import Supernet, resize
from elastic_nas.runs import RunFolder
from elastic_nas.specs import spec_from_key
from elastic_nas.specs.mbconv import MBConvSpec
from elastic_nas.training.calibration import calibrate
from elastic_nas.training.ofa_checkpoint import read_ofa

CLASSES = 3
PAGE = Path(__file__).parent.parent / "docs/once_for_all.md"
TABLE = Path(__file__).parent / "data/ofa_mbv3_w1.0_parameters.tsv"
PUBLISHED = "ofa_mbv3_d234_e346_k357_w1.0"


def published_shapes() -> dict[str, tuple[int, ...]]:
    rows = [line.split("\t") for line in TABLE.read_text().splitlines()]
    return {name: tuple(map(int, re.findall(r"\d+", shape))) for name, shape in rows}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_state(file_shapes(1.0, CLASSES))


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    """Such a file as is published."""
    path = tmp_path_factory.mktemp("ofa") / PUBLISHED
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def read(file) -> tuple[Network, Supernet]:
    return read_ofa(file)


@pytest.fixture(scope="module")
def exact(file) -> tuple[Network, Supernet]:
    """In float64."""
    network, supernet = read_ofa(file)
    return network, supernet.double()


@pytest.fixture(scope="module")
def reference(state) -> Reference:
    return Reference({name: value.double() for name, value in state.items()})


def images(size: int = 64, batch: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, size, size, generator=generator).double()


def sliced(supernet: Supernet, genotype: Genotype) -> Child:
    """The child in float64, its kernels not rounded to float32 on the way."""
    torch.set_default_dtype(torch.float64)
    try:
        return supernet.slice(genotype)
    finally:
        torch.set_default_dtype(torch.float32)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


# --- the space -----------------------------------------------------------------------------------


def test_the_reference_has_the_published_tensors():
    assert file_shapes(1.0, 1000) == published_shapes()


def test_the_largest_child_has_the_published_parameters():
    network = Network("ofa_mobilenetv3")
    parts = ("running_mean", "running_var", "num_batches_tracked", "_matrix")
    shapes = [s for name, s in published_shapes().items() if not name.endswith(parts)]
    assert network.params(network.largest) == sum(int(np.prod(s)) for s in shapes) == 7_664_760


def test_the_choices_are_the_published_ones():
    network = Network("ofa_mobilenetv3")
    choices = {dim.name: dim.choices for dim in network.dims}
    assert choices.pop("resolution") == tuple(range(128, 225, 4))
    for stage in range(2, 7):
        assert choices.pop(f"stage{stage}.depth") == (2, 3, 4)
        for block in range(1, 5):
            assert choices.pop(f"stage{stage}.block{block}.kernel") == (3, 5, 7)
            assert choices.pop(f"stage{stage}.block{block}.expand") == (3, 4, 6)
    assert all(len(fixed) == 1 for fixed in choices.values())
    assert count(network.dims) == 25 * (9**2 + 9**3 + 9**4) ** 5


def test_fvcore_counts_the_macs_of_the_reference(state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit, deprecated upstream
        from fvcore.nn import FlopCountAnalysis

    class Module(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Reference(state)(x, settings)

    network = Network("ofa_mobilenetv3", CLASSES)
    for genotype in (network.largest, sample(network.dims, Random(0))):
        settings = network.settings(genotype)
        x = torch.zeros(1, 3, settings["resolution"], settings["resolution"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counted = FlopCountAnalysis(Module(), x).unsupported_ops_warnings(False).by_operator()
        assert counted["conv"] + counted["linear"] == network.macs(genotype)


def test_widths_are_the_published_ones():
    with pytest.raises(ConfigError, match=r"width of ofa_mobilenetv3 must be 1\.0 or 1\.2, got 1"):
        _ = Network("ofa_mobilenetv3:width=1.3").space
    assert Network("ofa_mobilenetv3").space.name == "ofa_mobilenetv3:width=1.0"


def test_latency_keys_know_nothing_of_shared_weights():
    network = Network("ofa_mobilenetv3")
    for spec in network.blocks(network.largest):
        assert spec_from_key(spec.key) == spec
    block = network.blocks(network.largest)[1]
    assert isinstance(block, MBConvSpec)
    assert (block.activation, block.shortcut, block.expanded) == ("relu", "identity", False)


# --- kernel transforms ---------------------------------------------------------------------------


def transformed_conv() -> ElasticConv2d:
    """Depthwise, taps 0..24 and 100..124, and a matrix that mirrors the centre and doubles it."""
    conv = ElasticConv2d(2, 2, 5, depthwise=True, transformed=(3,))
    with torch.no_grad():
        conv.weight_OCKK.copy_(
            torch.stack([torch.arange(25.0), 100 + torch.arange(25.0)]).view(2, 1, 5, 5)
        )
        matrix = torch.zeros(9, 9)
        matrix[0, 1], matrix[8, 0] = 2, 1  # output tap 0 is twice input tap 1, 8 is input 0
        conv.to_kernel["3"].copy_(matrix)
    return conv


def test_a_small_kernel_is_the_centre_times_the_transposed_matrix():
    weight, _ = transformed_conv().active(in_ch=2, out_ch=2, kernel=3)
    assert weight[0, 0].tolist() == [[14, 0, 0], [0, 0, 0], [0, 0, 6]]  # the centre begins 6, 7, 8
    assert weight[1, 0].tolist() == [[214, 0, 0], [0, 0, 0], [0, 0, 106]]
    largest, _ = transformed_conv().active(in_ch=2, out_ch=2, kernel=5)
    assert largest.flatten().tolist() == [*range(25), *range(100, 125)]


def test_fresh_matrices_leave_the_centre_as_it_is():
    plain = ElasticConv2d(4, 4, 7, depthwise=True)
    conv = ElasticConv2d(4, 4, 7, depthwise=True, transformed=(5, 3))
    conv.load_state_dict(plain.state_dict(), strict=False)
    for kernel in (3, 5, 7):
        for channels in (2, 4):
            expected, _ = plain.active(channels, channels, kernel)
            assert torch.equal(conv.active(channels, channels, kernel)[0], expected)


def test_gradients_reach_weight_and_matrices():
    conv = ElasticConv2d(3, 3, 7, depthwise=True, transformed=(5, 3)).double()
    parameters = list(conv.parameters())
    assert [p.shape[0] for p in parameters] == [3, 9, 25]

    def active(*_: torch.Tensor) -> torch.Tensor:
        return conv.active(2, 2, 3)[0]

    assert torch.autograd.gradcheck(active, parameters)


def test_training_moves_the_matrices(read):
    network, supernet = read
    supernet.zero_grad()
    supernet(images(128).float(), network.smallest).square().sum().backward()
    matrices = {n: p for n, p in supernet.named_parameters() if ".to_kernel." in n}
    assert len(matrices) == 2 * 20
    active = {n for n, p in matrices.items() if p.grad is not None and p.grad.abs().sum() > 0}
    assert active == {n for n in matrices if int(n.split("block")[2][0]) <= 2}
    supernet.zero_grad()


# --- outputs -------------------------------------------------------------------------------------


def test_children_compute_what_the_reference_computes(exact, reference):
    network, supernet = exact
    rng, x = Random(1), images()
    random = [sample(network.dims, rng) for _ in range(10)]
    for genotype in (network.largest, network.smallest, *random):
        with torch.no_grad():
            child = sliced(supernet, genotype).train()
            close(child(x), reference(x, network.settings(genotype)))


def test_the_supernet_computes_what_the_reference_computes(exact, reference):
    network, supernet = exact
    x = images(144)
    for genotype in (network.smallest, (*network.smallest[:-3], 2, 2, 0)):
        with torch.no_grad():
            expected = reference(resize(x, 128), network.settings(genotype))
            close(supernet(x, genotype), expected)


def norms(child: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in child.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_largest_child_with_the_stored_statistics(exact, reference):
    network, supernet = exact
    state, settings, x = reference.state, network.settings(network.largest), images()
    stored: Statistics = {
        name.removesuffix(".running_mean"): (value, state[name.replace("mean", "var")])
        for name, value in state.items()
        if name.endswith("running_mean")
    }
    child = sliced(supernet, network.largest).eval()
    collecting = Reference(state)
    with torch.no_grad():
        collecting(x, settings)  # names in order of use
        for norm, name in zip(norms(child), collecting.seen, strict=True):
            norm.running_mean, norm.running_var = stored[name]
        close(child(x), Reference(state, stored)(x, settings))


def test_a_calibrated_child(exact, reference):
    network, supernet = exact
    genotype = sample(network.dims, Random(2))
    settings, x = network.settings(genotype), images(seed=1)
    collecting = Reference(reference.state)
    with torch.no_grad():
        collecting(images(batch=8), settings)
        child = sliced(supernet, genotype)
        calibrate(child, [images(batch=8)])
        close(child(x), Reference(reference.state, collecting.seen)(x, settings))


def test_the_wider_network(tmp_path):
    state = random_state(file_shapes(1.2, 2), seed=3)
    torch.save({"state_dict": state}, tmp_path / "w1.2")
    network, supernet = read_ofa(tmp_path / "w1.2")
    assert (network.space_name, network.classes) == ("ofa_mobilenetv3:width=1.2", 2)
    reference = Reference({name: value.double() for name, value in state.items()})
    genotype, x = sample(network.dims, Random(4)), images()
    with torch.no_grad():
        child = sliced(supernet.double(), genotype).train()
        close(child(x), reference(x, network.settings(genotype)))


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "wrapped"), [(0, False), (1, True), (2, False), (3, True), (4, False)]
)
def test_all_spellings_load_to_equal_weights(variant, wrapped, read, state, tmp_path):
    renamed = {list(spellings(name))[variant]: value for name, value in state.items()}
    assert variant == 0 or renamed.keys() != state.keys()
    torch.save(
        {"state_dict": renamed} if wrapped else renamed,
        tmp_path / "file",
        _use_new_zipfile_serialization=wrapped,  # published files are of both formats
    )
    assert equal(read[1], read_ofa(tmp_path / "file")[1])


def equal(one: Supernet, other: Supernet) -> bool:
    expected, got = one.state_dict(), other.state_dict()
    return all(torch.equal(expected[name], got[name]) for name in expected)


def test_what_data_parallel_saved_is_read(read, state, tmp_path):
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "best_acc": 0.5, "state_dict": wrapped}, tmp_path / "file")
    assert equal(read[1], read_ofa(tmp_path / "file")[1])
    some = {**state, "module.first_conv.conv.weight": state["first_conv.conv.weight"]}
    torch.save({"state_dict": some}, tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"holds unknown module\.first_conv\.conv\.weight"):
        read_ofa(tmp_path / "file")


@pytest.mark.parametrize("archive", [True, False])
def test_the_state_of_a_module_is_read(read, state, tmp_path, archive):
    """An ordered dict with attributes, some of its tensors parameters, some in half precision."""
    ordered = OrderedDict((name, value) for name, value in state.items())
    ordered._metadata = OrderedDict({"": {"version": 1}})
    name = "classifier.linear.bias"
    ordered[name] = nn.Parameter(ordered[name].half().float())
    half = OrderedDict(ordered, **{name: ordered[name].detach().half()})
    torch.save({"state_dict": ordered}, tmp_path / "a", _use_new_zipfile_serialization=archive)
    torch.save(half, tmp_path / "b", _use_new_zipfile_serialization=archive)
    first, second = (read_ofa(tmp_path / name)[1] for name in "ab")
    assert equal(first, second)
    torch.testing.assert_close(first.state_dict(), read[1].state_dict(), rtol=0, atol=1e-3)


def test_a_file_without_checksums_is_taken_with_a_word(state, tmp_path):
    data, file = photographs(tmp_path / "data"), tmp_path / "file"
    torch.save({"state_dict": state}, file, _use_new_zipfile_serialization=False)
    words = cli("import-ofa", file, "--data", data, "--out", tmp_path / "run").stderr
    assert "which has no checksums" in words
    assert sha256_of(file) in words
    assert json.loads((tmp_path / "run/imported.json").read_text())["checksums"] is False


class Code:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("format_", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, format_):
    trap = tmp_path / "executed"
    torch.save(
        {"state_dict": Code(trap)}, tmp_path / "file", _use_new_zipfile_serialization=format_
    )
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_ofa(tmp_path / "file")
    assert not trap.exists()


def changed(state, remove=(), **values):
    kept = {name: value for name, value in state.items() if name not in remove}
    return {**kept, **{name.replace("__", "."): value for name, value in values.items()}}


def file_of_width(width: float) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in file_shapes(width, 2).items()}


STEM, BIAS = "first_conv__conv__weight", "classifier__linear__bias"
LOST = [f"blocks.{n}.conv.point_linear.conv.conv.weight" for n in range(1, 6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: changed(state, remove=LOST, more=torch.zeros(1)),
            r"it lacks blocks\.1\.conv\.point_linear\.conv\.weight, .* and 2 more tensors; it "
            r"holds unknown more\.$",
        ),
        (lambda state: {"conv1.weight": torch.zeros(1)}, "no Once-for-All supernet"),
        (
            lambda state: changed(state, more=torch.zeros(1)),
            r"MobileNetV3: it holds unknown more\.$",
        ),
        (lambda state: changed(state, **{STEM: torch.zeros(32, 3, 3, 3)}), "a stem of 32 channels"),
        (
            lambda state: changed(state, **{STEM: torch.zeros(24, 3, 3, 3)}),
            r"first_conv\.bn\.weight has the shape \(16,\), not \(24,\)",
        ),
        (lambda state: changed(state, **{BIAS: torch.zeros(4)}), r"has the shape \(3, 1280\), not"),
        (
            lambda state: changed(state, **{BIAS: torch.full((3,), torch.nan)}),
            r"classifier\.linear\.bias holds numbers that are not finite",
        ),
        (lambda state: changed(state, **{BIAS: torch.zeros(3).int()}), "holds no plain numbers"),
        (
            lambda state: changed(state, **{BIAS: torch.zeros(())}),
            r"has the shape \(3, 1280\), not",
        ),
        (lambda state: changed(state, **{BIAS: [1.0]}), "is a list, where one tensor must be"),
        (
            lambda state: changed(state, classifier__linear__linear__bias=torch.zeros(3)),
            "appears twice",
        ),
        (lambda state: [state], "holds no dict of tensors"),
        (lambda state: {"state_dict": 5}, "holds no dict of tensors"),
        (
            lambda state: changed(state, feature_mix_layer__bn__bn__weight=torch.ones(1280)),
            "ProxylessNAS supernet .*ofa_mbv3_d234_e346_k357_w1.0 or _w1.2",
        ),
        (
            lambda state: {
                "input_stem.0.conv.conv.weight": torch.zeros(16, 3, 3, 3),
                "blocks.0.conv1.conv.conv.weight": torch.zeros(8, 8, 1, 1),
            },
            "is Once-for-All's ResNet50 supernet .*ofa_mbv3_d234_e346_k357_w1.0 or _w1.2",
        ),
        (
            lambda state: changed(state, **{BIAS: torch.tensor([0.1, -1234, 0])}),
            r"classifier\.linear\.bias holds 1\.23e\+03, and weights of a trained network stay",
        ),
        (
            lambda state: changed(state, **{BIAS: torch.full((3,), 1e300, dtype=torch.float64)}),
            r"classifier\.linear\.bias holds 1e\+300",
        ),
        (
            lambda state: changed(state, **{BIAS: torch.zeros(1).expand(3)}),
            r"classifier\.linear\.bias is a view of other numbers",
        ),
        (
            lambda state: changed(state, **{BIAS: torch.zeros(100_000)}),
            r"has the shape \(3, 1280\), not \(100000, 1280\)",
        ),
        (lambda state: changed(state, **{BIAS: torch.zeros(1)}), "tells 1 classes apart"),
        (lambda state: file_of_width(1.4), r"of width 1\.4 \(1,792 channels .*1\.0 and 1\.2"),
        (lambda state: file_of_width(0.75), r"of width 0\.75 \("),
    ],
)
def test_wrong_tensors_are_named(change, message, state, tmp_path):
    torch.save(change(state), tmp_path / "file")
    with pytest.raises(CheckpointError, match=message):
        read_ofa(tmp_path / "file")


def test_a_few_changed_bytes_are_found(file, tmp_path):
    content, rng = bytearray(file.read_bytes()), Random(0)
    for _ in range(64):
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"Bad CRC-32 for file .*Download it again"):
        read_ofa(tmp_path / "file")


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.99])
def test_a_truncated_file(file, tmp_path, share):
    content = file.read_bytes()
    (tmp_path / "file").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="nothing of it was executed or used"):
        read_ofa(tmp_path / "file")


def test_other_files(tmp_path):
    (tmp_path / "text").write_text("no tensors here\n" * 100)
    with pytest.raises(CheckpointError, match="no checkpoint that torch saved"):
        read_ofa(tmp_path / "text")
    with pytest.raises(CheckpointError, match="there is no file"):
        read_ofa(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="it is a folder, not a file"):
        read_ofa(tmp_path)
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(2 << 30)
    with pytest.raises(CheckpointError, match="larger than 268,435,456 bytes"):
        read_ofa(tmp_path / "huge")


# --- the command ---------------------------------------------------------------------------------


def photographs(folder: Path, classes: int = CLASSES) -> Path:
    """A folder of a few small images, named like ImageNet's."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        place = folder / f"n0144076{number}"
        place.mkdir(parents=True)
        for image in range(5):
            pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{image}.png")
    return folder


def test_examples_of_the_documentation_run(file, tmp_path, monkeypatch, stopped_clock):
    """Trainings take a step, and latencies are made up, but the rest is as documented."""
    photographs(tmp_path / "imagenet")
    (tmp_path / PUBLISHED).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\$ elastic-nas (.*)$", PAGE.read_text(), re.M)
    assert [line.split()[0] for line in lines] == [
        "import-ofa", "profile", "search", "query", "export", "verify", "train",
    ]  # fmt: skip
    for line in lines:
        words = shlex.split(line)
        if words[0] == "profile":
            network = RunFolder(Path("runs/ofa")).network
            table_of_here(network).write(RunFolder(Path("runs/ofa")).table(DEVICE))
        elif words[0] == "search":
            done(*words, "--macs", "50M", "--evaluations", 2)
        elif words[0] == "train":
            short = ("steps=1", "batch_size=2", "random_children=0", "validations=0")
            done(*words, *(word for key in short for word in ("--set", f"train.{key}")))
        else:
            done(*words)
    manifest = json.loads((tmp_path / "child/manifest.json").read_text())
    assert manifest["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert manifest["preprocess"]["std"] == [0.229, 0.224, 0.225]
    origin = json.loads((tmp_path / "runs/ofa/imported.json").read_text())
    assert origin == {
        "file": PUBLISHED, "sha256": sha256_of(file), "checksums": True,
        "space": "ofa_mobilenetv3:width=1.0",
    }  # fmt: skip


def test_a_folder_with_other_classes_is_refused(file, tmp_path):
    data = photographs(tmp_path / "data", classes=2)
    message = refused("import-ofa", file, "--data", data, "--out", tmp_path / "run")
    assert "tells 3 classes apart, and data has 2" in message
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_is_left_alone(file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes").write_text("mine")
    message = refused("import-ofa", file, "--data", "digits", "--out", tmp_path / "run")
    assert "is not empty and holds no run (it holds 'notes')" in message
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["notes"]
