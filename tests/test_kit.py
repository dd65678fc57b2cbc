"""The kit as a file: what is in it, that it is the same twice, and how small it is."""

import csv
import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
import onnxruntime
import pytest
from small_kit import BOARD, DRAW, NETWORK, Unchanged, unpacked, written

import elastic_nas.latency.kit as module
from elastic_nas.cli.texts import kit_text
from elastic_nas.errors import ConfigError, RunFolderError, TableError
from elastic_nas.files import PACKAGE
from elastic_nas.genotype import sample
from elastic_nas.kit_figures import digest, import_command
from elastic_nas.latency.devices import load_device
from elastic_nas.latency.imports import import_table
from elastic_nas.latency.kit_weights import ALIGNMENT, LEAST_BYTES, PERIOD, SharedWeights
from elastic_nas.latency.micromodels import block_model, child_model
from elastic_nas.latency.plan import plan_for
from elastic_nas.network import Network
from elastic_nas.oldest import ONNXRUNTIME
from elastic_nas.runtimes._quantise import SCHEMES
from elastic_nas.runtimes.onnxruntime_cpu import Runtime


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return written(tmp_path_factory.mktemp("kit") / "kit.zip")


@pytest.fixture(scope="module")
def folder(kit, tmp_path_factory):
    return unpacked(kit, tmp_path_factory.mktemp("unpacked"))


def test_all_names_stay_in_the_folder(kit):
    with ZipFile(kit) as file:
        names = file.namelist()
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.startswith("/")
        assert not {"..", ""} & set(name.split("/"))
        assert "\\" not in name
    assert {"run.py", "plan.json", "README.txt", "bare/onnxruntime.sh"} <= set(names)


def test_what_runs_there_is_what_runs_here(folder):
    for name in module.CARRIED:
        assert (folder / "elastic_nas" / name).read_bytes() == (PACKAGE / name).read_bytes()
    assert (folder / "run.py").read_bytes() == (PACKAGE / "kit_run.py").read_bytes()
    assert (folder / "elastic_nas" / "__init__.py").read_bytes() == b""


def test_equal_kits_are_equal_bytes(kit, tmp_path):
    assert written(tmp_path / "again.zip").read_bytes() == kit.read_bytes()


def test_the_plan_names_everything_with_its_hash(folder):
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["sha256"] == digest(plan)
    for model in plan["anchors"] + plan["blocks"] + plan["children"]:
        assert sha256((folder / model["file"]).read_bytes()).hexdigest() == model["sha256"]
    for name, known in plan["files"].items():
        assert sha256((folder / name).read_bytes()).hexdigest() == known
    wanted = plan_for(NETWORK, DRAW)
    assert [m["is"]["block"] for m in plan["blocks"][1:]] == [s.key for s in wanted.blocks]
    roles = {(tuple(m["is"]["genotype"]), m["is"]["role"]) for m in plan["children"]}
    assert roles == {(g, "fit") for g in wanted.fit} | {(g, "calibrate") for g in wanted.calibrate}
    assert [tuple(m["is"]["genotype"]) for m in plan["anchors"]] == list(wanted.anchors)
    assert plan["blocks"][0]["name"] == "null"
    assert plan["network"]["identity"] == NETWORK.identity


def test_models_hold_what_the_runtime_converts_them_to(tmp_path):
    class Doubling(Unchanged):
        def convert(self, model, input_shape):
            proto = onnx.load_model_from_string(model)
            proto.doc_string = f"for {input_shape}"
            return proto.SerializeToString()

    folder = unpacked(written(tmp_path / "kit.zip", Doubling()), tmp_path / "kit")
    proto = onnx.load(folder / "models" / "b0.onnx", load_external_data=False)
    assert proto.doc_string == "for (3, 4, 4)"


def outputs(path, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def shared_files(folder, models):
    weights = SharedWeights("weights.bin")
    shared = [weights.share(model)[0] for model in models]
    (folder / "weights.bin").write_bytes(b"".join(weights.chunks()))
    for number, model in enumerate(shared):
        (folder / f"{number}.onnx").write_bytes(model)
    return weights


def test_short_tensors_survive_sharing_bit_by_bit(tmp_path):
    network = Network("tiny:size=8", 10)
    model = child_model(network, network.smallest, 0)
    shared_files(tmp_path, [model])
    x = np.random.default_rng(0).uniform(0, 255, (1, 3, 4, 4)).astype(np.float32)
    assert np.array_equal(outputs(tmp_path / "0.onnx", x), outputs(model, x))


def test_long_tensors_keep_their_size_and_repeat_themselves(tmp_path):
    network = Network("tiny:size=32", 1000)
    model = child_model(network, network.largest, 0)
    weights = shared_files(tmp_path, [model])
    for then, now in zip(
        onnx.load_model_from_string(model).graph.initializer,
        onnx.load(tmp_path / "0.onnx").graph.initializer,
        strict=True,
    ):
        first, second = then.raw_data, now.raw_data
        assert len(first) == len(second)
        assert all(second[i] == first[i % PERIOD] for i in range(0, len(first), 997))
    assert weights.size == (tmp_path / "weights.bin").stat().st_size
    x = np.random.default_rng(0).uniform(0, 255, (1, 3, 32, 32)).astype(np.float32)
    values = outputs(tmp_path / "0.onnx", x)
    assert np.isfinite(values).all()
    assert 1e-3 < np.abs(values).max() < 1e9


def test_equal_weights_are_stored_once(tmp_path, rng_genotypes):
    network, genotypes = rng_genotypes
    specs = {spec for genotype in genotypes for spec in network.blocks(genotype)}
    blocks = SharedWeights("weights.bin")
    for spec in specs:
        blocks.share(block_model(spec, 0))
    both = SharedWeights("weights.bin")
    for spec in specs:
        both.share(block_model(spec, 0))
    for genotype in genotypes:
        both.share(child_model(network, genotype, 0))
    assert both.size == blocks.size > 0
    assert blocks.size % ALIGNMENT == 0


@pytest.fixture
def rng_genotypes():
    from random import Random

    network = Network("tiny:size=16", 10)
    return network, [sample(network.dims, Random(i)) for i in range(4)]


def test_small_tensors_stay_in_their_models():
    weights = SharedWeights("weights.bin")
    shared, total = weights.share(child_model(NETWORK, NETWORK.smallest, 0))
    tensors = onnx.load_model_from_string(shared).graph.initializer
    inside = [len(tensor.raw_data) for tensor in tensors if tensor.raw_data]
    assert inside
    assert max(inside) < LEAST_BYTES
    lengths = [int(e.value) for t in tensors for e in t.external_data if e.key == "length"]
    assert total == sum(lengths)


def test_a_generic_device_needs_no_kit(tmp_path):
    with pytest.raises(ConfigError, match=r"measure it here.*\n.*x86-epyc-avx512-ort-1t"):
        written(tmp_path / "kit.zip", device=replace(BOARD, generic=True))
    assert not list(tmp_path.iterdir())


def test_another_runtime_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"runs ncnn, but kits run onnxruntime\.\nA kit can"):
        written(tmp_path / "kit.zip", Unchanged(name="ncnn"))


def test_a_kit_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        written(tmp_path / "file" / "kit.zip")


def test_other_providers_may_not_fall_back(tmp_path):
    runtime = Unchanged(provider="CUDAExecutionProvider")
    folder = unpacked(written(tmp_path / "kit.zip", runtime), tmp_path / "kit")
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["session"]["session.disable_cpu_ep_fallback"] == "1"
    assert "onnxruntime with CUDAExecutionProvider" in (folder / "README.txt").read_text()
    assert "-e cuda " in (folder / "bare" / "onnxruntime.sh").read_text()


def test_facts_say_how_large_it_is(tmp_path):
    facts = module.write_kit(NETWORK, BOARD, Unchanged(), tmp_path / "kit.zip", DRAW)
    assert facts["bytes"] == (tmp_path / "kit.zip").stat().st_size
    with ZipFile(tmp_path / "kit.zip") as file:
        assert facts["unpacked_bytes"] == sum(info.file_size for info in file.infolist())
        assert facts["models"] == sum(name.endswith(".onnx") for name in file.namelist())


def test_one_command_is_printed_everywhere(tmp_path):
    device = replace(BOARD, place="my boards/board.yaml")
    facts = module.write_kit(NETWORK, device, Unchanged(), tmp_path / "kit.zip", DRAW)
    folder = unpacked(tmp_path / "kit.zip", tmp_path / "kit")
    command = (
        f"elastic-nas profile 'my boards/board.yaml' --space {NETWORK.space_name} --classes 10 "
        "--import "
    )
    assert facts["command"] == f"{command}result.json"
    assert facts["command"] in kit_text(facts)
    readme = (folder / "README.txt").read_text()
    assert f"   {command}result.json\n" in readme
    assert f"{command}by_hand/blocks.csv --children by_hand/children.csv\n" in readme
    assert f"#   {command}output.txt\n" in (folder / "bare" / "litert.sh").read_text()
    assert import_command(json.loads((folder / "plan.json").read_text())) == facts["command"]


def test_the_forms_by_hand_are_what_is_imported(folder, tmp_path):
    place = tmp_path / "by_hand"
    shutil.copytree(folder / "by_hand", place)
    for form in ("blocks", "children"):
        rows = list(csv.DictReader((place / f"{form}.csv").read_text().splitlines()))
        assert all((folder / row["file"]).is_file() for row in rows)
        with (place / f"{form}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "ms": 0.5 + 0.01 * i} for i, row in enumerate(rows))
    blocks, children = place / "blocks.csv", place / "children.csv"
    table, _ = import_table(blocks, NETWORK, BOARD, children=children)
    plan = plan_for(NETWORK, DRAW)
    assert table.blocks.keys() == set(plan.blocks)
    assert {(r.genotype, r.role) for r in table.children} == {
        *((g, "fit") for g in plan.fit),
        *((g, "calibrate") for g in plan.calibrate),
    }
    blocks.write_text(blocks.read_text().replace(",0.52\n", ",\n"))
    with pytest.raises(TableError, match=r"blocks.csv, line 4: ms must be milliseconds"):
        import_table(blocks, NETWORK, BOARD, children=children)


@pytest.mark.parametrize("scheme", ["", *SCHEMES])
def test_int8_models_are_as_old_as_those_they_are_made_of(scheme):
    """A newer form of them would be refused by the oldest ONNX Runtime that a kit promises."""
    model = child_model(NETWORK, NETWORK.smallest, 0)
    runtime = Runtime(1, "int8", scheme=scheme)
    shared, _ = SharedWeights("weights.bin").share(runtime.convert(model, (3, 4, 4)))
    before, after = (onnx.load_model_from_string(m) for m in (model, shared))
    assert after.ir_version == before.ir_version
    assert list(after.opset_import) == list(before.opset_import)


def test_the_oldest_onnxruntime_is_named_everywhere(folder):
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["needs"]["onnxruntime"] == ONNXRUNTIME
    assert f"'onnxruntime>={ONNXRUNTIME}'" in (folder / "README.txt").read_text()
    page = (Path(__file__).parent.parent / "docs" / "kit.md").read_text()
    assert f"onnxruntime {ONNXRUNTIME} or newer" in page


@pytest.mark.parametrize("name", ["stm32-class-mcu", "coral-class-npu"])
def test_a_device_that_cannot_run_python_is_told_its_own_way(name):
    device = load_device(name)
    assert f"elastic-nas profile {name} --space SPACE --import" in device.measure
    known = {"kit": "k.zip", "device": name, "space": "tiny", "models": 1, "bytes": 1}
    known["command"] = "elastic-nas profile"
    for route, expected in ((device.measure, device.measure), ("", "python run.py")):
        said = kit_text({**known, "unpacked_bytes": 1, "measure": route})
        assert expected in said
        assert ("python run.py" in said) == (route == "")
