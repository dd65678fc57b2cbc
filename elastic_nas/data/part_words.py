"""The words that people name the parts of a data set by: Training, valid, dev, test_images ..."""

import re
from unicodedata import normalize

_WORDS = {
    "train": ("train", "training", "trn", "tr", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development", "eval",
            "evaluation"),
    "test": ("test", "testing", "tst", "te", "holdout", "heldout"),
}  # fmt: skip
_PART = {word: part for part, words in _WORDS.items() for word in words}

_BESIDE = frozenset({
    "set", "sets", "data", "dataset", "datasets", "split", "part", "partition", "folder", "dir",
    "image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos",
    "jpg", "jpeg", "png", "raw", "final", "new", "clean", "sample", "samples", "copy",
    *"abcdefghijklmnopqrstuvwxyz",
})  # fmt: skip
"""Words that may stand beside one that names a part, without changing what it says."""

_FOLDS = frozenset({"fold", "folds", "cv", "kfold", "split", "partition"})

_GLUED = re.compile(
    r"x?(?P<word>train|training|val|valid|validation|dev|test|testing)(?P<beside>set|data|images|imgs|)"
)
_HELD_OUT = re.compile(r"(?i)\b(hold|held)[-_ ]out\b")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NUMBER = re.compile(r"\d{1,8}")
_LETTERS = re.compile(r"[^\W\d_]+|\d+")


def words_of(name: str) -> list[str]:
    """The words in a name, in lower case: ``trainSet_01`` has ``train``, ``set`` and ``01``."""
    words: list[str] = []
    plain = _CAMEL.sub(" ", normalize("NFKC", name))
    for word in _LETTERS.findall(_HELD_OUT.sub(r"\1out", plain)):
        lower = word.casefold()
        glued = _GLUED.fullmatch(lower)
        words += [part for part in glued.groups() if part] if glued else [lower]
    return words


def part_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` where a name says that and nothing else; else None.

    Numbers and words such as ``images`` or ``set`` may stand beside, and any words before:
    ``Training``, ``test_images``, ``val2017``, ``X_train`` and ``flowers-train`` name parts;
    ``train station`` and ``testosterone`` do not. ``bullet_train`` does: whether it is one, its
    neighbours tell.
    """
    words = [word for word in words_of(name) if not _NUMBER.fullmatch(word)]
    while words and words[-1] in _BESIDE:
        words.pop()
    named = {_PART[word] for word in words if word in _PART}
    if len(named) != 1:
        return None
    last, first = words[-1] in _PART, words[0] in _PART
    return named.pop() if last or (first and set(words) <= {*_PART, *_BESIDE}) else None


def is_fold(name: str) -> bool:
    """Whether a name is that of one of several folds: ``fold1``, ``Fold_02``, ``cv3``."""
    words = words_of(name)
    rest = [word for word in words if word not in _FOLDS and not _NUMBER.fullmatch(word)]
    return len(words) > 1 and words[0] in _FOLDS and not set(rest) - _BESIDE - {"of"}
