"""The images of a run: those that it was trained with, wherever they lie now."""

from typing import TYPE_CHECKING

from elastic_nas.config import DataConfig, RunConfig
from elastic_nas.data.place import anchored
from elastic_nas.errors import ConfigError, UnknownName
from elastic_nas.progress import say
from elastic_nas.runs import RunFolder

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset
    from elastic_nas.data.record import DataRecord
    from elastic_nas.data.split import Source


def images_of(run: RunFolder, config: RunConfig, *, strictly: bool = False) -> "Dataset":
    """The images of a run, on the sides that they were trained, selected and tested on.

    Classes, preprocessing and sides come from the run's record. Images that it does not know are
    left out; of those that are missing, a few are done without.

    Args:
        run: The run.
        config: Its run file; ``data.source`` may name a new place of the images.
        strictly: Refuse to go on where an image is missing or changed, as a training does.

    Raises:
        ConfigError: Classes, parts or statistics differ, or too many images are missing.
        UnknownName: The images are not where they were.
        ElasticNasError: They cannot be read.
    """
    if not run.images.is_file():
        return _of_old(run, config)
    from elastic_nas.data.record import read_record

    record = read_record(run.images)
    check_statistics(record.head.statistics, config.statistics, run)
    return tied_to(record, config.data, str(run.path), strictly=strictly)


def tied_to(
    record: "DataRecord", data: DataConfig, place: str, *, strictly: bool = False
) -> "Dataset":
    """Today's images on the sides that a record has them on.

    Args:
        record: Of a run.
        data: Where the images lie now, and whether some may be missing.
        place: The run, for messages.
        strictly: Do without none.

    Raises:
        ElasticNasError: See `images_of`.
    """
    from elastic_nas.data.dataset import dataset_of
    from elastic_nas.data.tied import check_lost, tie

    known = {"bits": record.head.bits, "bands": record.head.bands}
    tied = tie(record, _found(data.model_copy(update=known), place), place)
    check_lost(tied, place, accept=data.missing == "accept", strictly=strictly, say=say)
    return dataset_of(record, tied.splits, data.damaged)


def _found(data: DataConfig, place: str) -> "Source":
    from elastic_nas.data.dataset import find_source

    try:
        return find_source(data)
    except UnknownName as error:
        raise UnknownName(
            f"the images of {place} are not where they were: {error}\nIf they were moved, name "
            "their new place with --data."
        ) from error


def _of_old(run: RunFolder, config: RunConfig) -> "Dataset":
    """The images of a run that was made before runs kept a record of them.

    Raises:
        ConfigError: They are of other classes.
    """
    from elastic_nas.data.dataset import load_dataset
    from elastic_nas.data.tied import check_same_classes

    data = load_dataset(config.data, config.seed, config.statistics)
    check_same_classes(run.labels, data.labels, str(run.path), config.data.source)
    say(
        f"note: {run.path} was made before runs kept a record of their images: whether these are "
        "the images that it was trained on, on the same sides, cannot be checked."
    )
    return data


def check_statistics(then: str, now: str, run: RunFolder) -> None:
    """Refuse other statistics than those that the weights expect.

    Raises:
        ConfigError: They differ.
    """
    if then != now:
        raise ConfigError(
            f"{run.path} was trained with statistics: {then}, which cannot become {now}: the "
            "weights expect other pixels. Train in another folder with --out."
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
