"""Hardware profiles, and where tables are looked for."""

import pytest

from elastic_nas import plugins
from elastic_nas.errors import ConfigError, TableError, UnknownName
from elastic_nas.latency.devices import device_names, find_table, load_device, table_places

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
