"""Train one supernet; get the best child within a latency budget as a verified ONNX file.

>>> import elastic_nas as en
>>> run = en.train("photos", out="runs/photos", minutes=10)      # doctest: +SKIP
>>> run.profile("local-ort-1t")                                  # doctest: +SKIP
>>> run.search("local-ort-1t")                                   # doctest: +SKIP
>>> run.export("child", device="local-ort-1t", latency="5ms")    # doctest: +SKIP
"""

import importlib

from elastic_nas._version import __version__

TYPE_CHECKING = False  # typing itself is left to whoever needs it: this file stands before all else
if TYPE_CHECKING:
    from typing import Any

    from elastic_nas.api import Run, open_run, train, trust, verify
    from elastic_nas.errors import ElasticNasError
    from elastic_nas.network import Network

_HOMES = {
    "ElasticNasError": "errors",
    "Network": "network",
    "Run": "api",
    "open_run": "api",
    "train": "api",
    "trust": "api",
    "verify": "api",
}

__all__ = [
    "ElasticNasError", "Network", "Run", "__version__", "open_run", "train", "trust", "verify",
]  # fmt: skip


def __getattr__(name: str) -> "Any":
    """Public names are imported when first used, so that ``import elastic_nas`` is quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"elastic_nas.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'elastic_nas' has no attribute {name!r}")
