"""All kinds of files that are read."""

from fuzzing.data_kinds import of_data
from fuzzing.export_kinds import of_exports
from fuzzing.kinds import Kind
from fuzzing.run_kinds import of_runs
from fuzzing.seeds import Seeds
from fuzzing.table_kinds import of_tables


def all_kinds(seeds: Seeds) -> list[Kind]:
    """Every kind, with a valid file of it."""
    return [*of_runs(seeds), *of_tables(seeds), *of_data(seeds), *of_exports(seeds)]
