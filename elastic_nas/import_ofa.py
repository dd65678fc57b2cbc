"""A published Once-for-All supernet as a run: what `train` would leave, without the training."""

from pathlib import Path
from typing import TYPE_CHECKING

from elastic_nas.errors import ConfigError
from elastic_nas.files import locked, sha256_of, write_atomic, write_json
from elastic_nas.network import Network
from elastic_nas.pipeline import write_run_file
from elastic_nas.progress import say
from elastic_nas.runs import RunFolder

if TYPE_CHECKING:
    from elastic_nas.data.dataset import Dataset

PROVENANCE = "imported.json"


def import_ofa(file: Path, data: str, folder: Path) -> RunFolder:
    """Make a run folder of a published supernet; `search`, `query` and `export` work on it.

    Images are normalised by ImageNet's mean and deviation, which the supernet was trained with.
    ``imported.json`` says where the weights come from, and whether damage of the file would have
    been found; where not, so is said.

    Args:
        file: As Once-for-All publishes it (MobileNetV3, width 1.0 or 1.2).
        data: What children are calibrated, searched and tested on: a folder with the checkpoint's
            classes, in the order of its outputs when sorted by name.
        folder: The run folder, made where it is missing.

    Raises:
        CheckpointError: See `training.ofa_checkpoint.read_ofa`.
        ConfigError: The data have another number of classes than the checkpoint.
        RunFolderError: The folder holds a run or other files, or cannot be written.
    """
    from elastic_nas.config import DataConfig, RunConfig
    from elastic_nas.data.dataset import load_dataset
    from elastic_nas.resume import check_free
    from elastic_nas.training.checkpoint import Progress, save_checkpoint
    from elastic_nas.training.ofa_checkpoint import read_ofa
    from elastic_nas.training.torch_file import has_checksums

    run = RunFolder(folder)
    check_free(run, resume=False)
    with locked(folder):
        network, supernet = read_ofa(file)
        config = RunConfig(
            data=DataConfig(source=data), space=network.space_name, statistics="imagenet"
        )
        images = load_dataset(config.data, config.seed, config.statistics)
        _check_classes(file, network, images)
        run.write_record(network, images.labels)
        write_atomic(run.images, images.record.encoded())
        write_run_file(run, config)
        origin = {
            "file": file.name,
            "sha256": sha256_of(file),
            "checksums": has_checksums(file),
            "space": network.space_name,
        }
        write_json(folder / PROVENANCE, origin)
        if not origin["checksums"]:
            say(_doubt(file, str(origin["sha256"])))
        save_checkpoint(run.weights, network, supernet, Progress(0, 0))
    return run


def _doubt(file: Path, sha256: str) -> str:
    """What to tell about a file whose damage could not be found."""
    return (
        f"warning: {file} is of the format that torch wrote before version 1.6, which has no "
        "checksums: its structure is whole and its weights are of a credible size, but whether "
        "each is as it was published cannot be seen in it. Compare its SHA-256 with that of "
        f"another download:\n  {sha256}"
    )


def _check_classes(file: Path, network: Network, images: "Dataset") -> None:
    if len(images.labels) != network.classes:
        raise ConfigError(
            f"{file} tells {network.classes} classes apart, and {images.name} has "
            f"{len(images.labels)}. Give a folder with one class folder for each output, in the "
            "order of the outputs when sorted: for ImageNet the 1000 synset folders n01440764 to "
            "n15075141."
        )
