"""Valid files of every kind that is read, damaged on purpose: what is said of them, or believed."""
