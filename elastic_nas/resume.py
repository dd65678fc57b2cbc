"""Whether a training may begin in a folder, go on there, or is finished."""

import os
import socket
from contextlib import ExitStack

from elastic_nas import plugins
from elastic_nas.config import RunConfig
from elastic_nas.errors import ConfigError, RunFolderError
from elastic_nas.files import locked, write_atomic
from elastic_nas.network import Network
from elastic_nas.outside import read_text
from elastic_nas.progress import say
from elastic_nas.run_file import read_run_file
from elastic_nas.run_images import check_place, check_statistics
from elastic_nas.runs import RunFolder
from elastic_nas.training.checkpoint import Progress
from elastic_nas.training.distributed import Ranks

JOB = ".torchrun"
"""Names the job that began a run, so that torchrun's own restarts go on with it, and only they."""

MOST_JOB = 10_000
"""Bytes of that file."""


def check_names(config: RunConfig, named_in: str = "") -> None:
    """Refuse wrong names of plugins before images are read.

    Args:
        config: The run file.
        named_in: The file of an earlier run that names them, where the user does not.

    Raises:
        UnknownName: There is no such strategy or space.
        UntrustedCode: The earlier run names code that this user never named.
    """
    plugins.load("strategies", plugins.split_options(config.search.strategy)[0], named_in)
    if config.space is not None:
        _ = Network(config.space, named_in=named_in).space


def claim(
    run: RunFolder, config: RunConfig, ranks: Ranks, held: ExitStack, *, resume: bool
) -> tuple[RunConfig, bool]:
    """Take a folder for a training; the first process does it for all.

    Where torchrun has replaced lost processes, the training that they began goes on.

    Args:
        run: The folder.
        config: The run file.
        ranks: The processes that train together.
        held: Keeps the folder's lock.
        resume: Go on from the last checkpoint.

    Returns:
        The run file to train by, and whether there is a checkpoint to go on from.

    Raises:
        ElasticNasError: See `check_free`, `check_same`, `files.locked`.
    """

    def taken() -> tuple[dict[str, object], bool]:
        restarted = not resume and _is_restart(run)
        check_free(run, resume=resume or restarted)
        held.enter_context(locked(run.path))
        chosen = read_run_file(run.run_file) if restarted else config
        if resume or restarted:
            check_same(run, chosen)
        return chosen.model_dump(), bool(run.checkpoints)

    fields, begun = ranks.told(taken)
    return RunConfig.model_validate({**fields, "data": config.data}), begun


def mark(run: RunFolder) -> None:
    """Let a run remember torchrun's job, if it is one."""
    job = _job()
    if job is not None:
        write_atomic(run.path / JOB, job)


def _is_restart(run: RunFolder) -> bool:
    """Whether torchrun started this process in place of a lost one that trained this run."""
    count, path = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), run.path / JOB
    known = count.strip("0").isdecimal() and os.path.isfile(path) and os.path.isfile(run.run_file)
    return known and read_text(path, MOST_JOB) == _job()


def _job() -> str | None:
    """What tells a job of torchrun from all others: its agent, which outlives its processes."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name is None else f"{name} on {socket.gethostname()}, process {os.getppid()}"


def check_free(run: RunFolder, *, resume: bool) -> None:
    """Refuse a folder in which a training would overwrite what it did not write.

    Raises:
        RunFolderError: The folder holds a run that is not to be resumed, or other files; or there
            is no run to resume.
    """
    if resume:
        if not run.run_file.is_file():
            raise RunFolderError(f"{run.path} holds no run to resume.")
    elif run.checkpoints:
        raise RunFolderError(
            f"{run.path} holds a run already; go on with --resume, or choose another --out."
        )
    elif run.path.is_dir() and not (run.path / "network.json").exists():
        visible = sorted(entry.name for entry in run.path.iterdir() if entry.name[0] != ".")
        if visible:
            raise RunFolderError(
                f"{run.path} is not empty and holds no run (it holds {visible[0]!r}); choose "
                "another folder with --out."
            )


def check_same(run: RunFolder, config: RunConfig) -> None:
    """Refuse to go on with another seed or other statistics than the weights were trained with.

    Raises:
        ConfigError: They differ from those in the folder's run file, or the images lie elsewhere
            and the run has no record of them.
    """
    before = read_run_file(run.run_file)
    check_place(run, before.data, config.data)
    check_statistics(before.statistics, config.statistics, str(run.path))
    if before.seed != config.seed:
        raise ConfigError(
            f"{run.path} was trained with seed: {before.seed}, which cannot become {config.seed}: "
            "test images would mix with training images. Train in another folder with --out."
        )


def check_record(run: RunFolder, network: Network) -> None:
    """Refuse to go on in a folder whose record is of another network than its weights.

    Raises:
        RunFolderError: It is, or it is damaged.
        UntrustedCode: It names code that this user never named.
    """
    if (run.path / "network.json").exists() and run.network.identity != network.identity:
        raise RunFolderError(
            f"{run.path / 'network.json'} says {run.network.space_name}, but {network.space_name} "
            "is asked for; use the space that it was trained with, or train in another folder with "
            "--out."
        )


def is_finished(run: RunFolder, at: Progress, labels: tuple[str, ...], steps: int) -> bool:
    """Whether a run that is at `at` has done all `steps`; says so.

    Raises:
        ConfigError: It belongs to other classes, or is beyond what is asked for.
    """
    if labels != run.labels:
        raise ConfigError(
            f"the classes of the images have changed since {run.path} was trained: "
            f"{', '.join(sorted(set(labels) ^ set(run.labels))) or 'their order'}. Train in "
            "another folder with --out."
        )
    if at.step < steps:
        return False
    if at.step > steps or at.steps > steps:
        raise ConfigError(
            f"{run.path} is at step {at.step} of {at.steps} already, and {steps} are asked for: "
            "ask for more with --epochs or --minutes (in all), or train in another folder."
        )
    say(
        f"nothing to do: all {steps} steps are done. To train longer, give the new length in "
        "all: --resume --epochs N"
    )
    return True
