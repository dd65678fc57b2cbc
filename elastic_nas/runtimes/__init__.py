"""Runtimes, one file each: prepare a model file, run it."""
