"""Search spaces, one file each; a space is described here without torch."""
