"""What runtimes that come as a Python package have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elastic_nas.errors import ConfigError, ElasticNasError, MissingExtra

MAX_THREADS = 1024
INPUT_SEED = 7


@dataclass(frozen=True)
class PackagedRuntime:
    """Runs models one at a time with an explicit number of threads; a plugin adds `load` and `run`.

    Attributes:
        threads: Threads inside an operator; there are none between operators.
        precision: One of the plugin's `precisions`.
        provider: One of the plugin's `providers`.
    """

    threads: int = 1
    precision: str = "fp32"
    provider: str = "CPU"

    name: ClassVar[str]
    extra: ClassVar[str] = ""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    providers: ClassVar[tuple[str, ...]] = ("CPU",)
    graph_optimization: ClassVar[str]

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"threads must be 1 to {MAX_THREADS}, got {self.threads}.")
        if self.precision not in self.precisions:
            have = ", ".join(self.precisions)
            raise ConfigError(f"{self.name} has no precision {self.precision!r}; it has {have}.")
        if self.provider not in self.providers:
            have = ", ".join(self.providers)
            raise ConfigError(f"{self.name} has no provider {self.provider!r}; it has {have}.")

    @property
    def version(self) -> str:
        """Release of the installed package, without importing it; nothing where there is none."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(self.name)
        except PackageNotFoundError:
            return ""

    @property
    def owns_threads(self) -> bool:
        """Whether work happens outside the calling thread; with one thread none of these does."""
        return self.threads > 1

    def describe(self) -> dict[str, Any]:
        """What identifies this runtime, as stored in a latency table."""
        return {
            "name": self.name,
            "version": self.version,
            "provider": self.provider,
            "threads": self.threads,
            "graph_optimization": self.graph_optimization,
        }

    def convert(self, model: bytes, input_shape: tuple[int, ...]) -> bytes:
        """From an ONNX model to what `load` takes: the same bytes where that is ONNX."""
        return model

    def load(self, converted: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]:
        """A function that runs a converted model once, at batch 1, on a fixed random input.

        Args:
            converted: What `convert` made.
            input_shape: Without the batch.

        Raises:
            MissingExtra: The package is not installed.
            ConfigError: This machine's processor lacks the precision.
            ElasticNasError: The runtime refuses the model.
        """
        raise NotImplementedError("a runtime defines how a model is loaded")

    def prepare(self, model: bytes, input_shape: tuple[int, ...]) -> Callable[[], object]:
        """A function that runs an ONNX model once, at batch 1, on a fixed random input.

        Raises:
            MissingExtra: The package is not installed.
            ConfigError: This machine's processor lacks the precision.
            ElasticNasError: The runtime refuses the model, or lacks an operator of it.
        """
        return self.load(self.convert(model, input_shape), input_shape)

    def package(self) -> Any:
        """The package itself, imported.

        Raises:
            MissingExtra: It is not installed.
        """
        try:
            return import_module(self.name)
        except ImportError as error:
            what = f"elastic-nas[{self.extra}]" if self.extra else self.name
            raise MissingExtra(f"{self.name} is not installed: pip install '{what}'") from error

    def refusal(self, error: object) -> ElasticNasError:
        """An error that says why this runtime does not take a model."""
        return ElasticNasError(f"{self.name} refuses the model: {error}.")


def model_bytes(model: bytes | Path) -> bytes:
    """The content of a model that is given as such or as a file.

    Raises:
        ElasticNasError: The file cannot be read.
    """
    if isinstance(model, bytes):
        return model
    try:
        return model.read_bytes()
    except OSError as error:
        raise ElasticNasError(f"cannot read the model {model}: {error.strerror}.") from error


def fixed_input(input_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The input that models are timed on, batch 1, always the same for a shape.

    Args:
        input_shape: Without the batch. Three channels get pixels of 0-255, everything else
            (a block's features) numbers from a unit normal.
    """
    rng = np.random.default_rng(INPUT_SEED)
    shape = (1, *input_shape)
    x = rng.uniform(0, 255, shape) if input_shape[0] == 3 else rng.standard_normal(shape)
    return x.astype(np.float32)
