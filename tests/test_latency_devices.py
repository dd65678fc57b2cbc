"""Hardware profiles, and where tables are looked for."""

import re
from dataclasses import replace

import fake_latency
import numpy as np
import pytest

from elastic_nas import plugins
from elastic_nas.additive import file_bytes
from elastic_nas.budgets import Budgets
from elastic_nas.errors import ConfigError, TableError, UnknownName
from elastic_nas.latency.devices import (
    device_names,
    find_table,
    load_device,
    named_device,
    table_places,
)
from elastic_nas.network import Network
from elastic_nas.targets import missing_runtime, open_target, runtime_of

GOOD = """name: pi
description: A board.
runtime: onnxruntime_cpu
threads: 4
precision: fp32
generic: false
cpu: {arch: aarch64, name: part 0xd0b, flags: [asimd]}
"""
FACTS = {"arch": "aarch64", "cpu": "implementer 0x41, part 0xd0b", "flags": ["asimd", "bf16"]}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def written(folder, text, name="pi"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["local-ort-1t", "local-ort-2t", "x86-epyc-avx512-ort-1t"])
def test_shipped_profiles(name):
    device = load_device(name)
    assert device.name == name
    assert device.runtime in plugins.available("runtimes")
    assert device.generic == name.startswith("local")
    assert f"{device.threads}t" in name
    assert name in device_names()


def test_a_path_and_the_users_folder_work_too(tmp_path, home):
    assert load_device(written(tmp_path, GOOD)).threads == 4
    written(home / "hardware_profiles", GOOD)
    assert "pi" in device_names()
    assert load_device("pi").cpu["arch"] == "aarch64"


def test_a_device_is_recognised(tmp_path):
    device = load_device(written(tmp_path, GOOD))
    assert device.mismatch(FACTS) == ""
    assert "aarch64" in device.mismatch({**FACTS, "arch": "x86_64"})
    assert "0xd08" in device.mismatch({**FACTS, "cpu": "implementer 0x41, part 0xd08"})
    assert "lacks asimd" in device.mismatch({**FACTS, "flags": []})
    assert load_device("local-ort-1t").mismatch(FACTS) == ""
    assert len({device, load_device("local-ort-1t")}) == 2


def test_unknown_names_get_a_hint():
    with pytest.raises(UnknownName, match="did you mean 'local-ort-1t'"):
        load_device("local-ort1t")
    with pytest.raises(UnknownName, match="no file"):
        load_device("nowhere.yaml")


def test_a_name_from_a_file_is_never_a_path(tmp_path, home):
    path = written(tmp_path, GOOD)
    written(home / "hardware_profiles", GOOD)
    assert named_device("pi").name == "pi"
    for name in (path, "../pi", "pi.yaml", "", "x" * 10_000):
        with pytest.raises(UnknownName, match="no device called"):
            named_device(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("threads: 4", "thread: 4"), "did you mean 'threads'"),
        (("threads: 4", "threads: 0"), "threads of .* must be 1 to"),
        (("threads: 4", "threads: four"), "threads in .* must be a whole number"),
        (("threads: 4", "threads: true"), "threads in .* must be a whole number"),
        (("threads: 4\n", ""), "lacks the key 'threads'"),
        (("threads: 4", "threads: 4\nthreads: 4"), "stands there twice"),
        (("name: pi", "name: tau"), "must be the file's"),
        (("fp32", "fp8"), "precision of .* must be one of fp32"),
        (("arch:", "arc:"), "did you mean 'arch'"),
        (("[asimd]", "asimd"), "flags in cpu of .* must be a list"),
        (("[asimd]", "[1]"), "must be a list of words"),
        (("A board.", "&a [*a]"), "aliases"),
        (("A board.", "!!python/name:os.system"), "not valid YAML"),
        (("A board.", "[" * 5000), "not valid YAML"),
        (("A board.", "x" * 1_000_001), "larger than"),
        (("A board.", "\x00"), "not valid YAML"),
        ((GOOD, "- a"), "must be a mapping"),
        ((GOOD, "{[a]: 1}"), "unknown key|not valid YAML"),
        ((GOOD, ""), "must be a mapping"),
        (("A board.", "A board.\nlimits: {memory_kb: 0}"), "must be 1 kB or more"),
        (("A board.", "A board.\nlimits: {memory: 3}"), "unknown key 'memory' in limits"),
        (("A board.", "A board.\nlimits: [3]"), "limits of"),
        (("A board.", "A board.\nprovider: 3"), "provider in .* must be text"),
    ],
)
def test_bad_profiles_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        load_device(written(tmp_path, GOOD.replace(*change)))


def test_a_directory_is_no_profile(tmp_path):
    (tmp_path / "pi.yaml").mkdir()
    with pytest.raises(UnknownName):
        load_device(str(tmp_path / "pi.yaml"))


def test_tables_are_found_nearest_first(tmp_path, home):
    device, run = load_device("local-ort-1t"), tmp_path / "run"
    with pytest.raises(TableError, match="elastic-nas profile local-ort-1t --space SPACE"):
        find_table(device, run=run)
    in_run, in_home, shipped = table_places(device, run)
    assert table_places(device) == [in_home, shipped]
    assert shipped.parent.name == "latency_tables"
    assert in_home.is_relative_to(home)
    for place in (in_home, in_run):
        place.parent.mkdir(parents=True)
        place.write_text("{}")
        assert find_table(device, run=run) == place
    assert find_table(device) == in_home


def test_a_named_table_is_used_or_refused(tmp_path):
    device = load_device("local-ort-1t")
    with pytest.raises(TableError, match="no such file"):
        find_table(device, table=tmp_path / "t.json")
    (tmp_path / "t.json").write_text("{}")
    assert find_table(device, table=tmp_path / "t.json") == tmp_path / "t.json"


def test_a_profile_says_provider_scheme_and_limits(tmp_path):
    text = GOOD.replace("fp32", "int8") + "scheme: S8S8\nlimits: {memory_kb: 512, flash_kb: 2048}\n"
    device = load_device(written(tmp_path, text))
    assert (device.scheme, device.provider) == ("S8S8", "")
    assert device.limits == {"memory_kb": 512, "flash_kb": 2048}
    assert runtime_of(device).scheme == "S8S8"
    device = load_device(written(tmp_path, GOOD + "provider: CUDAExecutionProvider\n"))
    assert runtime_of(device).provider == "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("cpu", "scheme"),
    [
        ("{arch: aarch64}", "S8S8"),
        ("{arch: x86_64, flags: [avx2]}", "U8S8-reduced"),
        ("{arch: x86_64, flags: [avx512_vnni]}", "U8S8"),
    ],
)
def test_int8_models_follow_the_devices_cpu_not_this_machines(tmp_path, cpu, scheme):
    text = GOOD.replace("fp32", "int8").replace(
        "{arch: aarch64, name: part 0xd0b, flags: [asimd]}", cpu
    )
    assert runtime_of(load_device(written(tmp_path, text))).scheme == scheme


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("runtime: ncnn\nprovider: Vulkan", "no provider 'Vulkan'"),
        ("runtime: ncnn\nscheme: S8S8", "runtime ncnn has no scheme"),
        ("scheme: S8S8", "other precisions have none"),
        ("runtime: openvino\nprecision: int8", "has no precision 'int8'"),
    ],
)
def test_what_a_runtime_has_not_is_named(tmp_path, change, message):
    keys = {line.partition(":")[0] for line in change.splitlines()}
    kept = [line for line in GOOD.splitlines() if line.partition(":")[0] not in keys]
    device = load_device(written(tmp_path, "\n".join([*kept, change]) + "\n"))
    with pytest.raises(ConfigError, match=message):
        runtime_of(device)


def test_a_missing_runtime_says_what_to_install(tmp_path, monkeypatch):
    from elastic_nas.runtimes import openvino

    device = load_device("local-openvino-1t")
    assert missing_runtime(load_device("local-ort-1t")) == ""
    monkeypatch.setattr(openvino.Runtime, "version", "")
    assert missing_runtime(device) == (
        "needs openvino, which is not installed here (pip install 'elastic-nas[openvino]')"
    )


def test_a_query_needs_no_runtime(tmp_path, monkeypatch):
    from elastic_nas.runtimes import onnxruntime_cpu

    network, path = Network("tiny", 10), tmp_path / "table.json"
    fake_latency.table(network).write(path)
    monkeypatch.setattr(onnxruntime_cpu.Runtime, "version", "")
    target = open_target(network, "local-ort-1t", table=path)
    assert target.costs.predicted_ms([network.smallest])[0] > 0
    assert not target.is_here
    assert any("needs onnxruntime, which is not installed here" in note for note in target.notes)


def test_int8_models_of_a_gpu_are_symmetric(tmp_path):
    text = GOOD.replace("fp32", "int8") + "provider: TensorrtExecutionProvider\n"
    assert runtime_of(load_device(written(tmp_path, text))).scheme == "S8S8-symmetric"


def test_a_device_with_little_memory_limits_what_is_chosen(tmp_path):
    network, path = Network("tiny", 10), tmp_path / "table.json"
    fake_latency.table(network).write(path)
    target = open_target(network, "local-ort-1t", table=path)
    assert target.limited(Budgets(macs=5.0)) == Budgets(macs=5.0)
    small = replace(target, device=replace(target.device, limits={"memory_kb": 512}))
    assert small.limited(Budgets()) == Budgets(memory_bytes=512 * 1024)
    assert small.limited(Budgets(memory_bytes=9.0)) == Budgets(memory_bytes=9.0)
    flash = replace(target, device=replace(target.device, limits={"flash_kb": 1}))
    assert flash.limited(Budgets(size_bytes=9e9, macs=5.0)) == Budgets(size_bytes=1024, macs=5.0)


def test_size_and_memory_are_those_of_the_devices_precision(tmp_path):
    network, path = Network("tiny", 10), tmp_path / "table.json"
    largest = np.array([network.largest])
    costs = {}
    for name, precision in (("local-ort-1t", "fp32"), ("local-ort-int8-1t", "int8")):
        table = replace(fake_latency.table(network), precision=precision)
        table.device["name"] = name
        table.write(path)
        costs[precision] = open_target(network, name, table=path).costs
    fp32, int8 = costs["fp32"], costs["int8"]
    assert int8.memory_bytes(largest) == fp32.memory_bytes(largest) / 4
    assert int8.size_bytes(largest) == file_bytes(network, largest, "int8")
    assert 2 < fp32.size_bytes(largest) / int8.size_bytes(largest) < 4


def test_a_missing_table_says_how_to_make_one(tmp_path):
    for name, advice in (
        ("local-ort-2t", "Measure this machine: elastic-nas profile local-ort-2t --space SPACE"),
        ("stm32-class-mcu", "elastic-nas kit --device stm32-class-mcu --space SPACE --out kit.zip"),
    ):
        with pytest.raises(TableError, match=re.escape(advice)):
            find_table(load_device(name), run=tmp_path)
