"""Whether a training may begin in a folder, go on there, or is finished."""

from elastic_nas.config import RunConfig
from elastic_nas.data.place import anchored
from elastic_nas.errors import ConfigError, RunFolderError
from elastic_nas.progress import say
from elastic_nas.run_file import read_run_file
from elastic_nas.runs import RunFolder
from elastic_nas.training.checkpoint import Progress


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
    """Refuse to go on with other images or another split than the weights were trained with.

    Raises:
        ConfigError: `data`, `seed` or `statistics` differ from those in the folder's run file.
    """
    before = read_run_file(run.run_file)
    mix = "test images would mix with training images"
    for key, old, new, why in (
        ("data", anchored(before.data), anchored(config.data), mix),
        ("seed", before.seed, config.seed, mix),
        ("statistics", before.statistics, config.statistics, "the weights expect other pixels"),
    ):
        if old != new:
            raise ConfigError(
                f"{run.path} was trained with {key}: {old}, which cannot become {new}: {why}. "
                "Train in another folder with --out."
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
