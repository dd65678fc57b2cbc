"""The checkpoints of one training: the newest few and the best are kept, and damaged ones passed.

Order matters. A checkpoint is written once, into ``checkpoints/``; then ``supernet.safetensors``
becomes a second name of it; only then older ones go. Whatever kills the process in between, the
latest is whole, and the steps after it are done again with the same result.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from elastic_nas.budgets import format_size
from elastic_nas.config import TrainConfig
from elastic_nas.errors import CheckpointError, DamagedCheckpoint, RunFolderError
from elastic_nas.files import link_atomic, write_atomic
from elastic_nas.progress import say
from elastic_nas.runs import RunFolder
from elastic_nas.training.belongs import belongings, check_belongs
from elastic_nas.training.checkpoint import (
    Facts,
    Progress,
    encode,
    load_checkpoint,
    read_facts,
    read_progress,
)
from elastic_nas.training.recipe import changes, check_recipe
from elastic_nas.training.trainer import Trainer


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: The run folder, locked by the caller.
        trainer: Whose supernet, optimiser and average are stored and filled.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self._run, self._trainer = RunFolder(folder), trainer
        self._kept: list[int] = []  # steps of this course; others are of one that was given up
        self._best: float | None = None

    def save(self, at: Progress, score: float | None = None) -> None:
        """Write weights, optimiser state and what they belong to; keep the newest and the best.

        Args:
            at: How far the training is.
            score: Of the validation, where there was one.

        Raises:
            RunFolderError: The file cannot be written; the previous ones are untouched.
        """
        run, most = self._run, self._trainer.config.keep_checkpoints
        path = run.checkpoint(at.step)
        self._write(path, at, score)
        if score is not None and (self._best is None or score >= self._best):
            link_atomic(path, run.best)
            self._best = score
        link_atomic(path, run.weights)
        self._kept = [*(step for step in self._kept if step < at.step), at.step][-most:]
        for step in set(run.kept) - set(self._kept):
            _remove(run.checkpoint(step))
        if self._best is None:
            _remove(run.best)  # of a course that was given up

    def _write(self, path: Path, at: Progress, score: float | None) -> None:
        trainer = self._trainer
        about = {
            **belongings(trainer.data, trainer.seed),
            "processes": trainer.ranks.size,
            "train": trainer.config.model_dump(),
            "score": score,
        }
        content = encode(
            trainer.network, trainer.supernet, at, trainer.optimizer, trainer.average, about=about
        )
        try:
            write_atomic(path, content)
        except RunFolderError as error:
            raise RunFolderError(
                f"{error} {_space_needed(len(content), trainer.config)}"
            ) from error

    def restore(self) -> Progress:
        """Make the newest sound checkpoint the latest; says so where it is not the latest already.

        Raises:
            CheckpointError: All are damaged; or it belongs to another network or optimiser.
            ConfigError: It cannot go on with the trainer's recipe, seed or images.
        """
        run, network = self._run, self._trainer.network
        damaged: list[DamagedCheckpoint] = []
        for path in run.checkpoints:
            try:
                at = read_progress(path, network)
            except DamagedCheckpoint as error:
                damaged.append(error)
                continue
            break
        else:
            raise _none_sound(run, damaged)
        facts = read_facts(path)
        check_belongs(facts, self._trainer.data, self._trainer.seed, run.path)
        check_recipe(facts.get("train", {}), self._trainer.config, run.path)
        if path != run.weights:
            self._say_lost(path, at, damaged)
            link_atomic(path, run.weights)
        return at

    def _say_lost(self, path: Path, at: Progress, damaged: list[DamagedCheckpoint]) -> None:
        missing = [] if self._run.weights.is_file() else [f"{self._run.weights} is missing."]
        findings = " ".join([*missing, *(error.finding for error in damaged)])
        lost = max([0, *(step - at.step for step in self._run.kept)])
        steps = "1 step is" if lost == 1 else f"{lost or 'no'} steps are"
        say(f"warning: {findings} Going back to {path}, step {at.step}: {steps} lost.")

    def load(self) -> Progress:
        """Fill supernet, optimiser and average from the newest sound checkpoint.

        Raises:
            CheckpointError: See `restore`.
            ConfigError: See `restore`.
        """
        self.restore()
        run, trainer = self._run, self._trainer
        at = load_checkpoint(
            run.weights, trainer.network, trainer.supernet, trainer.optimizer, trainer.average
        )
        self._say_changes(read_facts(run.weights), at)
        kept = [step for step in run.kept if step <= at.step]
        self._kept = kept[-trainer.config.keep_checkpoints :]
        for step in kept[: -trainer.config.keep_checkpoints]:
            _remove(run.checkpoint(step))  # at once: a full disk may be waiting for it
        self._best = _score(run.best)
        return at

    def _say_changes(self, facts: Facts, at: Progress) -> None:
        """Tell what makes the steps to come others than those that were first asked for."""
        trainer = self._trainer
        differences = changes(facts.get("train", {}), trainer.config)
        before = facts.get("processes", trainer.ranks.size)
        if before != trainer.ranks.size:
            differences.append(f"processes {before} -> {trainer.ranks.size}")
        if differences:
            say(f"note: from step {at.step} on this is another recipe: {', '.join(differences)}.")


def _space_needed(size_bytes: int, config: TrainConfig) -> str:
    most = config.keep_checkpoints + 2
    fewer = " Go on with fewer: --resume --set train.keep_checkpoints=1"
    return (
        f"A checkpoint takes {format_size(size_bytes)}; with the best and the one that is being "
        f"written there are up to {most}, which take {format_size(most * size_bytes)}."
        f"{fewer if config.keep_checkpoints > 1 else ''}"
    )


def _none_sound(run: RunFolder, damaged: list[DamagedCheckpoint]) -> CheckpointError:
    if len(damaged) > 1:
        findings = "\n".join(error.finding for error in damaged)
        return CheckpointError(
            f"no checkpoint of {run.path} is sound:\n{findings}\nRestore one from a copy, or train "
            "anew with another --out."
        )
    return damaged[0] if damaged else CheckpointError(f"there is no checkpoint in {run.path}.")


def _score(path: Path) -> float | None:
    """What the best checkpoint reached; None where there is none that could be read."""
    with suppress(CheckpointError):
        score: Any = read_facts(path).get("score")
        return score if type(score) is float else None
    return None


def _remove(path: Path) -> None:
    with suppress(OSError):  # what cannot be removed is in nobody's way
        path.unlink()
