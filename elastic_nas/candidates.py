"""Which children an export tries: the one asked for, or the best within the budgets."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from elastic_nas import pipeline
from elastic_nas.budgets import Budgets
from elastic_nas.errors import ConfigError
from elastic_nas.genotype import Genotype, parse_genotype
from elastic_nas.runs import RunFolder
from elastic_nas.targets import Target


@dataclass(frozen=True)
class Candidate:
    """A child to deliver, with what is known of it before it is built."""

    genotype: Genotype
    predicted_ms: float | None
    bound_ms: float | None
    validation: dict[str, Any] | None


def candidates(
    run: RunFolder, target: Target | None, budgets: Budgets, genotype: str | None
) -> list[Candidate]:
    """The child asked for, or the best within the budgets and its successors on the front."""
    if genotype is not None:
        chosen = parse_genotype(run.network.dims, genotype)
        if target is None:
            return [Candidate(chosen, None, None, None)]
        array = np.array([chosen])
        predicted = float(target.predictor.predict_ms(array)[0])
        return [Candidate(chosen, predicted, float(target.predictor.bound_ms(array)[0]), None)]
    if target is None:
        raise ConfigError("export needs --device with --latency, or --genotype.")
    answers = pipeline.answers_of(pipeline.searched_rows(run), run, target, budgets)
    found, fastest = [], float("inf")
    for index, bound_ms in enumerate(answers.bound_ms.tolist()):
        if bound_ms < fastest:  # best first; a successor must promise to be faster
            answer, fastest = answers[index], bound_ms
            validation = {"accuracy": answer.accuracy, "n": answer.n}
            found.append(
                Candidate(answer.genotype, answer.predicted_ms, answer.bound_ms, validation)
            )
    return found
