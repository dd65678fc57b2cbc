"""Spaces of files that are written for a test, and a device for tables of them."""

from pathlib import Path

from elastic_nas.latency.devices import Device
from elastic_nas.network import Network

DEVICE = Device("note10", "", "onnxruntime_cpu", 1, "fp32", generic=False)

PROXYLESS = """
from dataclasses import dataclass
from elastic_nas.spaces._mobile import MobileSpace, Stage, Trunk

@dataclass(frozen=True)
class Space(MobileSpace):
    @property
    def trunk(self):
        return Trunk(
            resolutions=(32,), stem=(16,), stem_stride=2,
            stages=(
                Stage(1, (16,), (1,), (3,), (1,), se=False),
                Stage(2, (24,), (1, 2), (3, 5), (3, 6), se=SE),
            ),
            head=(64,), head_expand=0, per_block=True, squeeze_of="expanded",
            activation="relu", gate="hsigmoid", shortcut="identity",
        )
"""


def network_of(folder: Path, text: str, classes: int = 1000) -> Network:
    """The network of a space whose file has this text."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(text)
    return Network(str(folder / "mine.py"), classes)
