"""Search strategies, one file each: ask and tell."""
