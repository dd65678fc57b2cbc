"""What all tests share: one torch thread, no per-user folder, small versions of large spaces."""

import os
import signal
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from small_run import made_run, run, stopped_clock  # noqa: F401  fixtures

from elastic_nas import plugins
from elastic_nas.network import Network
from elastic_nas.spaces import attentive_nas, bignas, ofa_mobilenetv3
from elastic_nas.spaces._mobile import Trunk

torch.set_num_threads(1)
# A shell lets its background jobs ignore these, and the programs that they start inherit that.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        default = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, default)

SMALL_SIZES = (24, 32, 48, 72)


@dataclass(frozen=True)
class SmallBignas(bignas.Space):
    """`bignas` on images small enough to compute in tests."""

    @property
    def trunk(self) -> Trunk:
        return replace(super().trunk, resolutions=SMALL_SIZES)


@dataclass(frozen=True)
class SmallAttentive(attentive_nas.Space):
    """`attentive_nas` on images small enough to compute in tests."""

    @property
    def trunk(self) -> Trunk:
        return replace(super().trunk, resolutions=SMALL_SIZES)


@dataclass(frozen=True)
class SmallOfa(ofa_mobilenetv3.Space):
    """`ofa_mobilenetv3` on images small enough to compute in tests."""

    @property
    def trunk(self) -> Trunk:
        return replace(super().trunk, resolutions=SMALL_SIZES)


SMALL = {
    "bignas": SmallBignas,
    "attentive_nas": SmallAttentive,
    "ofa_mobilenetv3": SmallOfa,
}


def small_network(name: str, classes: int = 10) -> Network:
    """The network of a space, its images reduced where the space's own are large."""
    network = Network(name, classes)
    if name in SMALL:
        network.__dict__["space"] = SMALL[name]()  # takes the place of the cached property
    return network


@pytest.fixture(scope="session", params=plugins.available("spaces"))
def network(request: pytest.FixtureRequest) -> Network:
    """Each space in turn, at reduced image size where time requires."""
    return small_network(request.param)


@pytest.fixture(autouse=True)
def _own_user_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """No test reads or writes the per-user data folder, or another test's."""
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path_factory.mktemp("home")))
