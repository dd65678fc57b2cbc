"""Which files count as images: by their endings here, by their content when they are read."""

from functools import cache
from importlib.util import find_spec

from PIL import features

AVIF = "avif" in features.get_supported()
"""Whether this Pillow reads AVIF."""

HEIF = find_spec("pillow_heif") is not None
"""Whether Pillow's plug-in for photographs of iPhones is installed (pillow-heif)."""

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif",
    ".tiff", ".gif", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm",
    ".pbm", ".pnm", *((".avif",) if AVIF else ()), *((".heic", ".heif", ".hif") if HEIF else ()),
})  # fmt: skip
"""Endings, in lower case, of the files that count as images."""

FORMATS = (
    "JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "JPEG2000", "PPM",
    *(("AVIF",) if AVIF else ()), *(("HEIF",) if HEIF else ()),
)  # fmt: skip
"""Pillow's names of the formats that are read, whatever a file is called; others of its parsers
start programs (EPS) or are hardly ever needed."""


@cache
def register() -> None:
    """Make Pillow know the formats of its plug-ins."""
    if HEIF:
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]

        pillow_heif.register_heif_opener()
