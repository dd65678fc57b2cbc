"""One child of a run trained alone: from nothing, or on from the weights that it inherits."""

from pathlib import Path

from elastic_nas.errors import ConfigError
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
        run: Whose space, images and recipe are taken.
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
    from elastic_nas.network import Network
    from elastic_nas.run_file import parse_run, read_run_file

    if origin not in ORIGINS:
        raise ConfigError(f"a child is trained from {' or '.join(ORIGINS)}, not from {origin!r}.")
    config = read_run_file(run.run_file)
    network = Network(f"{run.network.whole.space_name}@{genotype}", run.network.classes)
    rate = config.train.learning_rate
    own = {
        "space": network.space_name,
        "train.init": str(run.path) if origin == "inherited" else "null",
        "train.learning_rate": rate * INHERITED_RATE if origin == "inherited" else rate,
    }
    settings = [f"{key}={value}" for key, value in own.items()]
    merged = parse_run(config.model_dump(exclude_unset=True), [*settings, *(changes or [])])
    return pipeline.train(merged, out, resume=resume)
