"""Hugging Face data sets: from the hub, or as saved on this machine."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elastic_nas import progress
from elastic_nas.config import DataConfig
from elastic_nas.data.folder import PARTS
from elastic_nas.data.identity import identity_of, stacked
from elastic_nas.data.images import read_image
from elastic_nas.data.place import HUB, name_of, saved_path
from elastic_nas.data.split import Part, Source
from elastic_nas.errors import ConfigError, DamagedImage, DataError, ElasticNasError, UnknownName
from elastic_nas.outside import MOST_JSON


@dataclass(frozen=True, eq=False)
class HubImages:
    """A column of images, undecoded.

    Attributes:
        name: Of the data set and its part, for messages.
        rows: Give ``{column: {"bytes": ..., "path": ...}}``.
        column: With the images.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    column: str

    def read(self, index: int) -> Image.Image:
        """One image, RGB.

        Raises:
            DataError: It is missing or damaged.
        """
        name, cell = f"row {index} of {self.name}", self._cell(index)
        content, path = cell.get("bytes"), cell.get("path")
        if content is not None:
            return read_image(name, content)
        if not path:
            raise DamagedImage(name, "the row has no image")
        return read_image(Path(path))

    def _cell(self, index: int) -> Mapping[str, Any]:
        try:
            return self.rows[index][self.column] or {}
        except Exception as error:  # the library raises nearly anything on damaged files
            raise DataError(f"cannot read row {index} of {self.name}: {_words(error)}.") from error

    @cached_property
    def identities(self) -> NDArray[np.uint8]:
        """Of the images' bytes, or of their files' paths, (n, 16)."""
        return stacked(identity_of(self._input(index)) for index in range(len(self.rows)))

    def _input(self, index: int) -> bytes:
        cell = self._cell(index)
        content: bytes | None = cell.get("bytes")
        return str(cell.get("path") or "").encode() if content is None else content


def find_on_hub(data: DataConfig) -> Source | None:
    """The data set that ``hf:NAME``, ``hf:NAME:CONFIG`` or ``hf:/path`` names; None of others.

    Raises:
        ConfigError: The extra ``hub`` is not installed.
        UnknownName: There is no such data set.
        DataError: It has no columns of images and labels, or several of a kind.
    """
    source = data.source
    if not source.startswith(HUB):
        return None
    loaded = _loaded(source)
    try:
        return _source(source, loaded)
    except ElasticNasError:
        raise
    except Exception as error:  # the library raises nearly anything on odd columns
        raise DataError(f"cannot use {source}: {_words(error)}.") from error


def _source(source: str, loaded: Any) -> Source:
    given = loaded if isinstance(loaded, Mapping) else {"all": loaded}
    parts = {PARTS.get(key.lower(), key): data for key, data in given.items()}
    if len(parts) < len(given):
        raise DataError(f"{source!r} has several parts for one split: {', '.join(given)}.")
    known = {key: parts[key] for key in ("all", "train", "val", "test") if key in parts}
    if not known.keys() & {"all", "train"}:
        raise DataError(f"{source!r} has no part 'train'; it has {', '.join(given)}.")
    first = next(iter(known.values()))
    image, label = (_column(first, kind, source) for kind in ("Image", "ClassLabel"))
    classes = tuple(first.features[label].names)
    made = {key: _part(f"{key} of {source}", data, image, label) for key, data in known.items()}
    labelled = {key: part for key, part in made.items() if (part.labels >= 0).all()}
    if unlabelled := made.keys() - labelled.keys():
        _say_unlabelled(unlabelled, labelled, source)
    return Source(name_of(source), source, classes, labelled)


def _say_unlabelled(parts: Set[str], labelled: dict[str, Part], source: str) -> None:
    if not labelled.keys() & {"all", "train"}:
        raise DataError(f"the training images of {source!r} have no labels.")
    progress.say(f"The part {' and '.join(sorted(parts))} of {source} has no labels: left out.")


def _loaded(source: str) -> Any:
    """A `datasets.Dataset`, or a mapping of them."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"{source} needs Hugging Face's library 'datasets', which is not installed. "
            "Install it with: pip install 'elastic-nas[hub]'"
        ) from error
    try:
        saved = saved_path(source)
        if saved is not None:
            _check_files(saved)
            return datasets.load_from_disk(str(saved))
        name, _, config = source.removeprefix(HUB).partition(":")
        return datasets.load_dataset(name, config or None)
    except ElasticNasError:
        raise
    except FileNotFoundError as error:
        raise UnknownName(
            f"no data set is called {source}: {_words(error)}. Write hf:NAME or hf:NAME:CONFIG for "
            "one of https://huggingface.co/datasets, hf:/path for one saved with save_to_disk."
        ) from error
    except Exception as error:  # the library raises nearly anything where a download fails
        raise DataError(f"cannot load {source}: {_words(error)}.") from error


def _check_files(folder: Path) -> None:
    """Refuse a saved data set with a pipe or a device in it, for which the library would wait.

    Raises:
        DataError: It has one, or a description that is too large.
    """
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.is_dir() or not path.exists():
            continue
        if not path.is_file():
            raise DataError(f"{str(path)!r} is a pipe or a device, not a file of a data set.")
        if path.suffix == ".json" and path.stat().st_size > MOST_JSON:
            raise DataError(f"{str(path)!r} has more than {MOST_JSON:,} bytes.")


def _words(error: Exception) -> str:
    """What a library says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300].rstrip(".")


def _column(data: Any, kind: str, source: str) -> str:
    columns = [name for name, feature in data.features.items() if type(feature).__name__ == kind]
    if len(columns) == 1:
        return str(columns[0])
    what = ", ".join(f"{name} ({type(of).__name__})" for name, of in data.features.items())
    raise DataError(
        f"{source!r} has {len(columns) or 'no'} columns of type {kind} ({what}); it takes one. "
        "Change it in Python (cast_column, remove_columns), save it with save_to_disk, and use "
        "hf:/path."
    )


def _part(name: str, data: Any, image: str, label: str) -> Part:
    import datasets

    if not {image, label} <= set(data.features):
        raise DataError(f"{name} lacks the column {image!r} or {label!r} that other parts have.")
    labels = _labels(name, data, label)
    # A saved data set may name a format of its rows, such as tensors.
    rows = data.with_format(None).select_columns([image])
    rows = rows.cast_column(image, datasets.Image(decode=False))
    names: Iterable[str] = map(str, range(len(labels)))
    return Part(names, labels, HubImages(name, rows, image))


def _labels(name: str, data: Any, label: str) -> NDArray[np.int64]:
    """Of all rows, (n,); -1 in all of them says that a part is not labelled."""
    given = data.select_columns([label]).with_format("arrow")[:].column(label)
    labels: NDArray[np.int64] = given.fill_null(-1).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(data.features[label].names)))
    if len(labels) == 0:
        raise DataError(f"{name} is empty.")
    if len(wrong) and not (labels == -1).all():
        raise DataError(
            f"the label of row {wrong[0]} of {name} is {labels[wrong[0]]}, which is none of the "
            f"{len(data.features[label].names):,} classes. Leave such rows out."
        )
    return labels
