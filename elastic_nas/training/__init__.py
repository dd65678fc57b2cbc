"""Training a supernet, calibrating and evaluating its children."""
