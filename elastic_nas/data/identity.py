"""What an image is known by: a hash of its content, wherever it lies and whatever it is called."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

WIDTH = 16
"""Bytes of an identity: two different images have the same one by chance of about 1e-27 even
among a hundred million."""


def identity_of(content: bytes) -> bytes:
    """The identity of an image whose input bytes these are: the first bytes of their SHA-256."""
    return sha256(content).digest()[:WIDTH]


def stacked(identities: Iterable[bytes]) -> NDArray[np.uint8]:
    """Identities as an array: (n, 16)."""
    return np.frombuffer(b"".join(identities), np.uint8).reshape(-1, WIDTH)


def split_up(identities_NB: NDArray[np.uint8]) -> list[bytes]:
    """The rows of such an array as keys."""
    content = identities_NB.tobytes()
    return [content[at : at + WIDTH] for at in range(0, len(content), WIDTH)]


def digest_of(labels_N: NDArray[np.int64], identities_NB: NDArray[np.uint8]) -> str:
    """Hex hash of labelled images in their order."""
    digest = sha256(labels_N.astype("<i8").tobytes())
    digest.update(identities_NB.tobytes())
    return digest.hexdigest()
