"""Latency tables: measuring, fitting, predicting, bounding."""
