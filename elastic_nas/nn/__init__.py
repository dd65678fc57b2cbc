"""Building blocks: one file per block kind holds all that knows how to narrow and to write it."""
