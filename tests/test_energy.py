"""Energy counters on made-up machines: nothing is told that was not counted."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_nas.energy import EnergyCounter, counter, millijoules_a_run

FULL_UJ = 262_143_328_850


class Tree:
    """A folder as Linux's powercap: packages, their parts, and the platform."""

    def __init__(self, root):
        self.root = root

    def add(self, name, kind, energy_uj):
        folder = self.root / name
        folder.mkdir()
        (folder / "name").write_text(f"{kind}\n")
        (folder / "max_energy_range_uj").write_text(f"{FULL_UJ}\n")
        self.set(name, energy_uj)

    def set(self, name, energy_uj):
        (self.root / name / "energy_uj").write_text(f"{energy_uj}\n")


@pytest.fixture
def tree(tmp_path):
    made = Tree(tmp_path)
    made.add("intel-rapl:0", "package-0", 5_000_000)
    made.add("intel-rapl:0:0", "core", 4_000_000)
    made.add("intel-rapl:1", "package-1", 7_000_000)
    made.add("intel-rapl:2", "psys", 90_000_000)
    made.add("intel-rapl-mmio:0", "package-0", 5_000_000)
    return made


def test_packages_are_summed_and_nothing_counts_twice(tree):
    found = counter(tree.root)
    assert found.joules() == 0
    for name, energy_uj in (
        ("intel-rapl:0", 6_500_000),
        ("intel-rapl:0:0", 5_400_000),
        ("intel-rapl:1", 7_250_000),
        ("intel-rapl:2", 99_000_000),
        ("intel-rapl-mmio:0", 6_500_000),
    ):
        tree.set(name, energy_uj)
    assert found.joules() == pytest.approx(1.75)
    assert "2 processor package(s)" in found.rule
    assert "power at rest included" in found.rule


@given(st.lists(st.integers(0, FULL_UJ - 1), max_size=20), st.integers(0, FULL_UJ - 1))
def test_a_full_counter_goes_on_growing(tmp_path_factory, steps, start):
    tree = Tree(tmp_path_factory.mktemp("powercap"))
    tree.add("intel-rapl:0", "package-0", start)
    found, total = counter(tree.root), 0
    for step in steps:
        total += step
        tree.set("intel-rapl:0", (start + total) % FULL_UJ)
        assert found.joules() == pytest.approx(total / 1e6)


def test_without_a_counter_there_is_none(tmp_path):
    assert counter(tmp_path / "nothing") is None
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0:0", "core", 1)
    assert counter(tmp_path) is None


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
def test_a_package_that_cannot_be_read_is_not_left_out_of_the_sum(tree, file):
    (tree.root / "intel-rapl:1" / file).unlink()
    assert counter(tree.root) is None
    (tree.root / "intel-rapl:1" / file).mkdir()
    assert counter(tree.root) is None


def test_a_counter_of_no_numbers_is_none(tree):
    tree.set("intel-rapl:0", "n/a")
    assert counter(tree.root) is None


class Meter:
    """Takes energy by the run, and shows it in steps."""

    def __init__(self, millijoules, step_mj):
        self.millijoules, self.step_mj, self.runs = millijoules, step_mj, 0

    def run(self):
        self.runs += 1

    def joules(self):
        return self.runs * self.millijoules // self.step_mj * self.step_mj / 1e3

    def counter(self):
        return EnergyCounter(self.joules, "a test's")


@pytest.mark.parametrize(("millijoules", "step_mj"), [(2, 2), (2, 1000), (3, 2400), (50, 10)])
def test_a_run_is_measured_between_steps_of_the_counter(millijoules, step_mj):
    meter = Meter(millijoules, step_mj)
    found = millijoules_a_run(meter.run, meter.counter(), seconds=0.01)
    assert found == pytest.approx(millijoules)


def test_a_counter_that_stands_still_tells_nothing():
    meter = Meter(0, 1)
    assert millijoules_a_run(meter.run, meter.counter(), seconds=0.005) is None
    assert meter.runs > 0


def test_a_counter_that_goes_away_tells_nothing(tree):
    found = counter(tree.root)

    def run():
        (tree.root / "intel-rapl:1" / "energy_uj").unlink(missing_ok=True)

    assert millijoules_a_run(run, found, seconds=0.005) is None


def fake_nvml(monkeypatch, energy_mj, cards=(0, "GPU-7")):
    """The functions of nvidia-ml-py that are used."""

    class NVMLError(Exception):
        pass

    def handle(name):
        if name not in cards:
            raise NVMLError(f"no card {name}")
        return name

    module = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetTotalEnergyConsumption=lambda card: energy_mj[card],
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_a_graphics_card_counts_millijoules(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    energy_mj = {0: 1500, "GPU-7": 9000}
    module = fake_nvml(monkeypatch, energy_mj)
    found = counter(gpu=True)
    assert found.joules() == 1.5
    assert "one graphics card" in found.rule
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7,0")
    assert counter(gpu=True).joules() == 9.0

    def lost(card):
        raise module.NVMLError("GPU is lost")

    module.nvmlDeviceGetTotalEnergyConsumption = lost
    assert millijoules_a_run(lambda: None, found, seconds=0.001) is None
    assert counter(gpu=True) is None


def test_without_a_card_or_its_package_there_is_no_counter(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    fake_nvml(monkeypatch, {0: 1})
    assert counter(gpu=True) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert counter(gpu=True) is None
