"""One child of a run trained alone: from nothing, or on from the weights that it inherits."""

from dataclasses import replace
from pathlib import Path

from elastic_nas.errors import ConfigError
from elastic_nas.genotype import format_genotype, parse_genotype
from elastic_nas.runs import RunFolder

INHERITED_RATE = 0.1
"""Of the run's learning rate, for weights that are trained already."""
ORIGINS = ("scratch", "inherited")


def train_child(
    run: RunFolder,
    genotype: str,
    out: Path,
    *,
    origin: str = "scratch",
    changes: list[str] | None = None,
    resume: bool = False,
) -> RunFolder:
    """Train one child alone with the run's data and recipe; `out` is a run like any other.

    Args:
        run: Whose space, images (with their sides and preprocessing) and recipe are taken.
        genotype: The child: a genotype in text form, ``smallest`` or ``largest``.
        out: The new run's folder.
        origin: ``scratch``; or ``inherited``: on from the child's weights in the supernet, at a
            tenth of the learning rate.
        changes: ``key=value`` overrides of the run file; without a length, the run's own.
        resume: Go on from the checkpoint in `out`.

    Raises:
        ElasticNasError: See `pipeline.train`.
    """
    from elastic_nas import pipeline
    from elastic_nas.run_file import parse_run, read_run_file
    from elastic_nas.training.belongs import check_seed
    from elastic_nas.training.checkpoint import read_facts

    if origin not in ORIGINS:
        raise ConfigError(f"a child is trained from {' or '.join(ORIGINS)}, not from {origin!r}.")
    config = read_run_file(run.run_file)
    whole = run.network.whole
    chosen = format_genotype(parse_genotype(whole.dims, genotype))
    network = replace(whole, space_name=f"{whole.space_name}@{chosen}")
    inherited = origin == "inherited"
    rate = config.train.learning_rate * (INHERITED_RATE if inherited else 1)
    own = {"init": str(run.path) if inherited else None, "learning_rate": float(f"{rate:.6g}")}
    values = config.model_dump()
    values |= {"space": network.space_name, "train": {**values["train"], **own}}
    merged = parse_run(values, changes)
    if inherited:
        check_seed(read_facts(run.weights), merged.seed, run.path)
    return pipeline.train(merged, out, resume=resume, named_in=str(run.run_file), origin=run)
