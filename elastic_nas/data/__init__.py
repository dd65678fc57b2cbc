"""Images: where they come from, how they are split, resized and augmented."""
