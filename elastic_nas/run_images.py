"""The images of a run: those that it was trained with, wherever they lie now."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from elastic_nas.config import DataConfig, RunConfig
from elastic_nas.data.place import anchored
from elastic_nas.errors import CheckpointError, ConfigError, DataError, RunFolderError, UnknownName
from elastic_nas.progress import say
from elastic_nas.run_file import read_run_file
from elastic_nas.runs import RunFolder, open_run

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset
    from elastic_nas.data.record import DataRecord
    from elastic_nas.data.split import Source
    from elastic_nas.training.distributed import Ranks

MAY_CHANGE = ("data", "search")
"""Sections of a run file that may change after the training."""


def config_of(run: RunFolder, changes: list[str] | None = None) -> RunConfig:
    """A trained run's file with ``key=value`` changes of what is no fact of its training.

    Raises:
        ConfigError: A key is of another section, or a value cannot be.
    """
    for change in changes or []:
        key = change.partition("=")[0]
        if key.partition(".")[0] not in MAY_CHANGE:
            raise ConfigError(
                f"--set {change}: {key} is a fact of the training in {run.path}, which is over. "
                "Here --set takes keys that begin with data. or search.; to train otherwise: "
                "elastic-nas train."
            )
    return read_run_file(run.run_file, changes)


def images_of(
    run: RunFolder, config: RunConfig, *, strictly: bool = False, command: str = ""
) -> "Dataset":
    """The images of a run, on the sides that they were trained, selected and tested on.

    Classes, preprocessing and sides come from the run's record. Images that it does not know are
    left out; of those that are missing, a few are done without.

    Args:
        run: The run.
        config: Its run file; ``data.source`` may name a new place of the images.
        strictly: Refuse to go on where an image is missing or changed, as a training does.
        command: What names a new place, for messages; by default the user's own with ``--data``.

    Raises:
        ConfigError: Classes, parts or statistics differ, or too many images are missing.
        RunFolderError: The run's record is damaged, or of another run.
        UnknownName: The images are not where they were.
        ElasticNasError: They cannot be read.
    """
    content = record_bytes(run)
    if not content:
        return _of_old(run, config, command)
    return tied_to(decoded_of(run, content), config, str(run.path), strictly, command)


def record_bytes(run: RunFolder) -> bytes:
    """The content of the file that tells of a run's images; empty where it has none.

    Raises:
        RunFolderError: It cannot be read, or is damaged, or tells of other classes than the run.
    """
    if not os.path.lexists(run.images):
        return b""
    from elastic_nas.data.record import MOST_BYTES
    from elastic_nas.outside import read_bytes

    content = read_bytes(run.images, MOST_BYTES)
    if decoded_of(run, content).classes != run.labels:
        raise RunFolderError(
            f"{run.images} tells of other classes than {run.path / 'network.json'}: one of them is "
            "another run's. Restore it from a copy, or train anew."
        )
    return content


def decoded_of(run: RunFolder, content: bytes) -> "DataRecord":
    """The record in what `record_bytes` has read."""
    from elastic_nas.data.record import decoded

    return decoded(content, run.images)


def tied_to(
    record: "DataRecord", config: RunConfig, place: str, strictly: bool = False, command: str = ""
) -> "Dataset":
    """Today's images on the sides that a record has them on.

    Args:
        record: Of a run.
        config: Where the images lie now, and whether some may be missing.
        place: The run, for messages.
        strictly: Do without none.
        command: See `images_of`.

    Raises:
        ElasticNasError: See `images_of`.
    """
    from elastic_nas.data.dataset import dataset_of, known_reading
    from elastic_nas.data.tied import check_lost, tie

    data = config.data
    check_statistics(record.head.statistics, config.statistics, place)
    found = _found(known_reading(data, record, place), record.classes, place, command)
    tied = tie(record, found, place)
    check_lost(tied, place, accept=data.missing == "accept", strictly=strictly, say=say)
    return dataset_of(record, tied.splits, data.damaged)


def _found(data: DataConfig, known: tuple[str, ...], place: str, command: str) -> "Source":
    from elastic_nas.data.dataset import find_source

    try:
        return find_source(data, known)
    except (UnknownName, DataError) as error:
        kind = UnknownName if isinstance(error, UnknownName) else DataError
        raise kind(f"{error}\n{_moved(place, command)}") from error


def _moved(place: str, command: str) -> str:
    shown = f": {command} --data NEW" if command else " with --data NEW."
    return f"If the images of {place} lie elsewhere now, name their new place{shown}"


def _of_old(run: RunFolder, config: RunConfig, command: str) -> "Dataset":
    """The images of a run that was made before runs kept a record of them.

    Raises:
        ConfigError: They are of other classes.
    """
    from elastic_nas.data.dataset import load_dataset

    try:
        data = load_dataset(config.data, config.seed, config.statistics, first=run.labels)
    except UnknownName as error:
        raise UnknownName(
            f"{error}\n{run.path} has no record of its images, as runs of version 0.1.0: put them "
            f"back at {config.data.source}, or train anew."
        ) from error
    _check_labels(run, data, config)
    if not _weights_tell(run):
        say(
            f"note: {run.path} has no record of its images, as runs of version 0.1.0: whether "
            "these are those that it was trained on, on the same sides, cannot be told."
        )
    return data


def _weights_tell(run: RunFolder) -> bool:
    """Whether the weights have hashes of their images, which are then compared with these."""
    from elastic_nas.training.belongs import tells_images
    from elastic_nas.training.checkpoint import read_facts

    try:
        return tells_images(read_facts(run.weights))
    except CheckpointError:  # told by whoever reads the weights
        return False


def images_to_train(
    run: RunFolder, config: RunConfig, ranks: "Ranks", *, begun: bool, origin: RunFolder | None
) -> "Dataset":
    """The images of a training, in all of its processes; the first one alone reads run folders.

    Args:
        run: What is trained.
        config: Its run file; ``train.init`` names a run whose weights it begins with.
        ranks: The processes.
        begun: Whether the training goes on: its images are those of its record.
        origin: A run whose images, sides and preprocessing are taken as they are.

    Raises:
        ElasticNasError: See `images_of`, `data.dataset.load_dataset`.
        SystemExit: Another process failed, and tells why.
    """
    from elastic_nas.data.dataset import load_dataset

    exact = run if begun else origin
    init = config.train.init
    of = exact or (None if init is None else RunFolder(Path(init)))
    content = b"" if of is None else ranks.sent(lambda: _checked_bytes(of, begun=begun))
    command = f"elastic-nas train --resume --out {run.path}" if begun else ""
    with ranks.together():
        if of is None:
            return load_dataset(config.data, config.seed, config.statistics)
        if exact is None:
            return _beginning(of, content, config, ranks)
        if not content:
            return _of_old(exact, config, command)
        return tied_to(decoded_of(of, content), config, str(of.path), begun, command)


def _checked_bytes(run: RunFolder, *, begun: bool) -> bytes:
    return record_bytes(run if begun else open_run(run.path))


def _beginning(origin: RunFolder, content: bytes, config: RunConfig, ranks: "Ranks") -> "Dataset":
    """The images of a training that begins with the weights of another run."""
    from elastic_nas.data.dataset import load_begun, load_dataset

    if content:
        record = decoded_of(origin, content)
        check_statistics(record.head.statistics, config.statistics, str(origin.path))
        return load_begun(config.data, config.seed, record, str(origin.path))
    data = load_dataset(config.data, config.seed, config.statistics)
    if ranks.first:
        _check_labels(origin, data, config)
    say(
        f"note: {origin.path} has no record of its images, as runs of version 0.1.0: whether some "
        "that it was trained on are search-validation or test images here cannot be told."
    )
    return data


def _check_labels(run: RunFolder, data: "Dataset", config: RunConfig) -> None:
    """Refuse images of other classes than those of a run without a record."""
    from elastic_nas.data.tied import check_same_classes

    if (run.path / "network.json").exists():  # which other processes may not have
        check_same_classes(run.labels, data.labels, str(run.path), config.data.source)


def check_statistics(then: str, now: str, place: str) -> None:
    """Refuse other statistics than those that the weights expect.

    Raises:
        ConfigError: They differ.
    """
    if then != now:
        raise ConfigError(
            f"{place} was trained with statistics: {then}, which cannot become {now}: the weights "
            f"expect other pixels. Leave it at {then} (--set statistics={then}), or train anew in "
            "another folder with --out."
        )


def check_place(run: RunFolder, before: DataConfig, now: DataConfig) -> None:
    """Refuse another place of the images of a run that cannot tell whether they are the same.

    Raises:
        ConfigError: It has no record of them, and the place differs.
    """
    then, there = anchored(before.source), anchored(now.source)
    if then != there and not run.images.is_file():
        raise ConfigError(
            f"{run.path} was trained with data: {then}, and has no record of its images, so that "
            f"whether those of {there} are the same cannot be checked. Put them back at {then}, or "
            "train in another folder with --out."
        )
