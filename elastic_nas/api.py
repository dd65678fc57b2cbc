"""The public functions: from a folder of images to a verified ONNX file in five lines.

The command line offers the same, see `cli.py`; both call `pipeline` and `delivery`.
"""

from os import PathLike
from pathlib import Path
from typing import Any

from elastic_nas import facts, pipeline, profiling
from elastic_nas.budgets import Budgets, Limit
from elastic_nas.network import Network
from elastic_nas.query import Answer
from elastic_nas.runs import open_run as open_folder

AnyPath = str | PathLike[str]


class Run:
    """A trained run, and what can be asked of it.

    Args:
        path: The run folder, as `train` makes it.

    Raises:
        UnknownName: There is no run there.
    """

    def __init__(self, path: AnyPath) -> None:
        self._folder = open_folder(Path(path))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def network(self) -> Network:
        """The description of what was trained: dims, blocks, MACs and parameters of children."""
        return self._folder.network

    def profile(
        self, device: str, *, classes: int | None = None, out: AnyPath | None = None
    ) -> str:
        """Measure this machine for the run's children; returns the report.

        Args:
            device: A hardware profile, such as ``local-ort-1t``: this machine.
            classes: Outputs of the measured children; by default the run's.
            out: The table's file; by default in the run folder.

        Raises:
            MeasurementRefused: The machine is too busy for honest figures.
        """
        path = None if out is None else Path(out)
        return profiling.profile(
            device, profiling.Scope(run=self._folder, classes=classes, out=path)
        )[1]

    def search(  # noqa: PLR0913  one parameter an option
        self,
        device: str,
        *,
        latency: Limit = None,
        params: Limit = None,
        macs: Limit = None,
        size: Limit = None,
        memory: Limit = None,
        evaluations: int | None = None,
        strategy: str | None = None,
        data: AnyPath | None = None,
        settings: list[str] | None = None,
    ) -> list[Answer]:
        """Search the children on a device; returns the Pareto front, fastest first.

        Args:
            device: A hardware profile, such as ``local-ort-1t``: this machine.
            latency: Budget, such as ``5ms``; likewise the others.
            params: Of parameters.
            macs: Of multiply-accumulates.
            size: Of the file.
            memory: Of peak activations.
            evaluations: Children to know in the end; by default the run file's.
            strategy: Such as ``evolution``; by default the run file's.
            data: Where the run's images lie now, if elsewhere.
            settings: ``key=value`` changes of the run file's sections ``data`` and ``search``,
                such as ``data.missing=accept``.

        Raises:
            InfeasibleBudget: The smallest child breaks a budget.
            TableError: There is no latency table for the device yet.
        """
        budgets = Budgets.of(latency, params, macs, size, memory)
        return pipeline.search(
            self._folder,
            device,
            budgets,
            evaluations=evaluations,
            strategy=strategy,
            changes=_changes(data, settings),
        )

    def query(
        self,
        device: str,
        *,
        latency: Limit = None,
        params: Limit = None,
        macs: Limit = None,
        size: Limit = None,
        memory: Limit = None,
    ) -> Answer:
        """The best evaluated child whose latency bound and counts keep all budgets.

        Raises:
            InfeasibleBudget: There is none.
        """
        budgets = Budgets.of(latency, params, macs, size, memory)
        return pipeline.query(self._folder, device, budgets)[0][0]

    def export(  # noqa: PLR0913  one parameter an option
        self,
        out: AnyPath,
        *,
        device: str | None = None,
        latency: Limit = None,
        params: Limit = None,
        macs: Limit = None,
        size: Limit = None,
        memory: Limit = None,
        genotype: str | None = None,
        data: AnyPath | None = None,
        settings: list[str] | None = None,
    ) -> dict[str, Any]:
        """Write the best child within the budgets, or `genotype`, as a verified ONNX file.

        Args:
            out: The folder to write.
            device: The hardware profile of the latency budget.
            latency: Budget, such as ``5ms``; likewise the others.
            params: Of parameters.
            macs: Of multiply-accumulates.
            size: Of the file.
            memory: Of peak activations.
            genotype: This very child, such as ``0,1,0``.
            data: Where the run's images lie now, if elsewhere.
            settings: See `search`.

        Returns:
            The manifest: accuracy of the file on the test split, latency, parity, settings.

        Raises:
            ExportMismatch: The file does not compute what the child computes; nothing is written.
        """
        from elastic_nas import delivery

        budgets = Budgets.of(latency, params, macs, size, memory)
        return delivery.export(
            self._folder,
            Path(out),
            device_name=device,
            budgets=budgets,
            genotype=genotype,
            changes=_changes(data, settings),
        )


def _changes(data: AnyPath | None, settings: list[str] | None) -> list[str]:
    return facts.changes(None if data is None else str(data), settings)


def train(
    data: AnyPath,
    out: AnyPath,
    *,
    space: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
) -> Run:
    """Train a supernet on a folder of class folders.

    Args:
        data: The folder, or ``digits``.
        out: The run folder to make.
        space: A space with its options, e.g. ``tiny:size=32``; by default chosen from the images.
        epochs: Length of the training in passes over the images; by default the recipe's.
        minutes: Or in minutes.
        resume: Go on from the checkpoint in `out`.

    Raises:
        ElasticNasError: The data cannot be used, the folder is in use, ...; the message says what
            to do.
    """
    given = {"data": str(data), "space": space, "train.epochs": epochs, "train.minutes": minutes}
    changes = facts.overrides(given)
    config, folder = facts.train_config(None, str(data), Path(out), changes, resume=resume)
    pipeline.train(config, folder, resume=resume)
    return Run(folder)


def open_run(path: AnyPath) -> Run:
    """The run in a folder that `train` made.

    Raises:
        UnknownName: There is no run there.
    """
    return Run(path)


def trust(file: AnyPath) -> str:
    """Let a Python file run from now on that a run or a hardware profile from outside names.

    It is remembered by its content; what you name yourself needs no word. Returns its SHA-256.

    Raises:
        UnknownName: There is no such file.
    """
    from elastic_nas.trusted import trust

    return trust(Path(file))


def verify(
    folder: AnyPath,
    device: str | None = None,
    data: AnyPath | None = None,
    settings: list[str] | None = None,
) -> dict[str, Any]:
    """Recheck an exported folder; nothing in it runs as code.

    Args:
        folder: What `Run.export` wrote.
        device: Time the file on this machine as that hardware profile says.
        data: Images as `train` takes them: the accuracy is recomputed on those that the child was
            scored on.
        settings: How they are read, such as ``["data.missing=accept"]``.

    Returns:
        ``figures``, each ``recomputed here``, ``agrees with the file`` or ``claimed``; ``parity``,
        ``accuracy`` and ``latency`` as found here.

    Raises:
        ExportMismatch: A file was changed or computes something else here, or the manifest says
            what disagrees or cannot be.
    """
    from elastic_nas.verification import verify

    return verify(Path(folder), device, None if data is None else str(data), settings)
