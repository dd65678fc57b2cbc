"""Which members of a tar belong together: an image and its label, by their names.

WebDataset (https://github.com/webdataset/webdataset) takes what stands before the first dot of a
name for the sample's. Real names have more dots: an image and a label are paired by the longest
name that they have in common, which is the same wherever that rule was kept to.
"""

import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from elastic_nas.data.formats import SUFFIXES
from elastic_nas.data.passed_over import by_name, ending
from elastic_nas.errors import DataError

LABELS = (".cls", ".json")
"""Endings of members that give a label; the first one of a sample counts."""

MOST_IN_SAMPLE = 100
"""Members of one sample: an image, its label, and what else is known of it."""

BARE, FURTHER = "images without a label", "further images of a sample"

Members = list[tarfile.TarInfo]


class Sample(NamedTuple):
    """An image and its label."""

    image: tarfile.TarInfo
    label: tarfile.TarInfo


def samples_of(
    members: Iterator[tarfile.TarInfo], shard: str, left_out: Counter[str]
) -> Iterator[Sample]:
    """The samples of a tar, in its order; their members stand in a row.

    Args:
        members: Of the tar.
        shard: Its name in messages.
        left_out: Counts by kind what is no sample; added to.

    Raises:
        DataError: Which image a label is of is open.
    """
    for key, group in groupby(members, key=lambda member: _first(member.name)):
        held: Members = []
        for member in group:
            held.append(member)
            if len(held) > MOST_IN_SAMPLE:
                done, held = _cut(held, key, shard)
                yield from _paired(done, shard, left_out)
        yield from _paired(held, shard, left_out)


def _first(name: str) -> str:
    """The folder and what stands before the first dot."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _stem(name: str) -> str:
    """The name without its last ending."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.rpartition(".")[0]


def _ending(name: str) -> str:
    file = name.rpartition("/")[2]
    return f".{file.rpartition('.')[2].lower()}" if "." in file else ""


def _cut(members: Members, key: str, shard: str) -> tuple[Members, Members]:
    """Many members that begin alike, without those of the last one, and these.

    Raises:
        DataError: All have one name.
    """
    last = _stem(members[-1].name)
    at = len(members)
    while at and _stem(members[at - 1].name) == last:
        at -= 1
    if not at:
        raise DataError(
            f"the shard {shard!r} has more than {MOST_IN_SAMPLE} members in a row that are "
            f"called {key[:100]!r} up to the first dot: a sample has fewer."
        )
    return members[:at], members[at:]


def _paired(members: Members, shard: str, left_out: Counter[str]) -> list[Sample]:
    """The samples among members that begin alike."""
    images: dict[str, Members] = defaultdict(list)
    labels: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
    for member in members:
        kind, stem = _ending(member.name), _stem(member.name)
        if hidden := by_name(member.name.rpartition("/")[2]):
            left_out[hidden] += 1
        elif kind in SUFFIXES:
            images[stem].append(member)
        elif kind not in LABELS:
            left_out[f"other members {ending(member.name)}"] += 1
        elif labels[stem].setdefault(kind, member) is not member:
            raise _open(member, shard, "two labels of one kind")
    return _in_order(_chosen(images, labels, left_out), labels, shard, left_out)


def _chosen(
    images: dict[str, Members],
    labels: dict[str, dict[str, tarfile.TarInfo]],
    left_out: Counter[str],
) -> dict[str, Members]:
    """The images of each label's name."""
    chosen = {stem: images.pop(stem) for stem in list(labels) if stem in images}
    for stem, more in images.items():
        mine = _longest(stem, labels)
        if mine is None:
            left_out[BARE] += len(more)
        elif mine in chosen and _stem(chosen[mine][0].name) == mine:
            left_out[FURTHER] += len(more)
        else:
            chosen[mine] = chosen.get(mine, []) + more
    return chosen


def _longest(stem: str, labels: dict[str, dict[str, tarfile.TarInfo]]) -> str | None:
    """The longest name of a label that an image's name goes on from, after a dot."""
    fits = [name for name in labels if stem.startswith(f"{name}.")]
    return max(fits, key=len, default=None)


def _in_order(
    chosen: dict[str, Members],
    labels: dict[str, dict[str, tarfile.TarInfo]],
    shard: str,
    left_out: Counter[str],
) -> list[Sample]:
    samples = []
    for stem, of_stem in labels.items():
        images = chosen.get(stem, [])
        label = next(of_stem[kind] for kind in LABELS if kind in of_stem)
        if len(images) > 1:
            raise _open(label, shard, f"{len(images)} images")
        if images:
            samples.append(Sample(images[0], label))
        elif LABELS[0] in of_stem:
            left_out["labels without an image"] += 1
        else:  # a file that is no part of a sample: a list, a licence
            left_out["other members .json"] += 1
    return sorted(samples, key=lambda sample: sample.image.offset)


def _open(member: tarfile.TarInfo, shard: str, what: str) -> DataError:
    return DataError(
        f"{member.name!r} in the shard {shard!r} has {what}. A sample is one image, with its "
        "label as .cls or .json right beside it under the same name."
    )
