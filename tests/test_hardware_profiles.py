"""The shipped hardware profiles: each loads, says what it is, and knows its machine."""

import re

import pytest

from elastic_nas import plugins
from elastic_nas.files import data_folder
from elastic_nas.latency.devices import device_names, load_device

FLAGS = ["asimd", "asimddp", "avx512_bf16", "avx512_vnni", "avx512f"]
MACHINES = {
    "rpi4": {"arch": "aarch64", "cpu": "implementer 0x41, part 0xd08", "flags": ["asimd"]},
    "rpi5": {"arch": "aarch64", "cpu": "implementer 0x41, part 0xd0b", "flags": FLAGS[:2]},
    "jetson": {"arch": "aarch64", "cpu": "implementer 0x41, part 0xd42", "flags": FLAGS[:2]},
    "coral": {"arch": "aarch64", "cpu": "implementer 0x41, part 0xd03", "flags": ["asimd"]},
    "x86": {"arch": "x86_64", "cpu": "AMD EPYC (family 26, model 2)", "flags": FLAGS[2:]},
}
"""What `machine.environment` says on them."""
NAMES = device_names()
BOARDS = [name for name in NAMES if not name.startswith(("local", "x86"))]


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_says_what_it_is(name):
    device = load_device(name)
    assert device.runtime in plugins.available("runtimes")
    assert device.precision in plugins.load("runtimes", device.runtime).Runtime.precisions
    assert device.generic == name.startswith("local") == (not device.cpu)
    threads = re.search(r"-(\d+)t$", name)
    assert threads is None or device.threads == int(threads[1])
    for precision in ("int8", "bf16", "fp16"):
        assert (f"-{precision}" in name) <= (device.precision == precision)


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_has_no_table_and_says_how_to_make_one(name):
    assert not (data_folder("latency_tables") / f"{name}.json").exists()
    text = load_device(name).description
    kit = f"elastic-nas kit --device {name} --space SPACE --out kit.zip"
    assert "no table" in text
    assert kit in text or f"elastic-nas profile {name} --space SPACE" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_fits_its_machine_and_no_other(name):
    device = load_device(name)
    fitting = {m for m, facts in MACHINES.items() if not device.mismatch(facts)}
    named = {machine for machine in MACHINES if name.startswith(machine)}
    if device.generic:
        assert fitting == MACHINES.keys()
    elif named:
        assert fitting == named
    else:
        assert "x86" not in fitting
