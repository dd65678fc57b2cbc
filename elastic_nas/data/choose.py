"""Choosing a space for a data set."""

from elastic_nas.data.dataset import Dataset

TINY_UP_TO_PX = 40
ATTENTIVE_FROM_PX = 160
ATTENTIVE_FROM_IMAGES = 100_000
MIDDLING_COMPACT = 96
MIDDLING_BELOW_IMAGES = 2000
"""So few images do not pay for a larger resolution than `MIDDLING_COMPACT`."""


def choose_space(dataset: Dataset) -> tuple[str, str]:
    """The space that suits the size and number of the training images.

    Returns:
        The space as text (``tiny:size=16``), and the reason, a line for the user.
    """
    space = _space(dataset.typical_size, len(dataset.train))
    return space, (
        f"{len(dataset.train):,} training images of about {dataset.typical_size} px: space {space}"
    )


def _space(typical_px: int, images: int) -> str:
    if typical_px <= TINY_UP_TO_PX:
        return f"tiny:size={next((s for s in (16, 24, 32) if s >= typical_px), 32)}"
    if typical_px >= ATTENTIVE_FROM_PX and images >= ATTENTIVE_FROM_IMAGES:
        return "attentive_nas"
    largest = typical_px / 0.875
    if images < MIDDLING_BELOW_IMAGES:
        largest = min(largest, MIDDLING_COMPACT)
    return f"compact:size={max([64, *(s for s in (96, 128, 160) if s <= largest)])}"
