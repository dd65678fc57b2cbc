"""The search: driver, history, Pareto front."""
