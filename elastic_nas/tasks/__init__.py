"""Tasks, one file each: head, losses, metric, and the data they learn from."""
