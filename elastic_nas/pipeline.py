"""The main flow: train, search, query; `profiling.py` measures, `delivery.py` exports and verifies.

Heavy imports stand inside the functions: a query must not pay for torch.
"""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from elastic_nas import plugins
from elastic_nas.budgets import Budgets
from elastic_nas.data.place import anchored
from elastic_nas.errors import RunFolderError
from elastic_nas.files import locked, sha256_of, write_atomic, write_json
from elastic_nas.finalists import measure_finalists
from elastic_nas.genotype import Genotype
from elastic_nas.latency.bound import LEVEL
from elastic_nas.network import Network
from elastic_nas.progress import say
from elastic_nas.query import Answer, Answers
from elastic_nas.query import query as answer_query
from elastic_nas.run_images import config_of, images_of, images_to_train
from elastic_nas.runs import RunFolder
from elastic_nas.search.history import History, Row, read_history
from elastic_nas.targets import Target, open_target

MORE = 10
MORE_TIMES = 3
"""Children that a search adds where a finalist broke its bound, and how often."""

if TYPE_CHECKING:
    from elastic_nas.config import DataConfig, RunConfig
    from elastic_nas.data.dataset import Dataset
    from elastic_nas.training.evaluation import Judge


def train(
    config: "RunConfig",
    folder: Path,
    *,
    resume: bool = False,
    named_in: str = "",
    origin: RunFolder | None = None,
) -> RunFolder:
    """Train a supernet, with all processes that torchrun starts; what it leaves is in `folder`.

    Args:
        config: The run file.
        folder: The run folder, made where it is missing; the first process alone looks into it.
        resume: Go on from the last checkpoint instead of refusing a folder that holds one.
        named_in: The file of an earlier run that names space and strategy, where the user does not.
        origin: A run whose images, sides and preprocessing are taken as they are.

    Raises:
        ElasticNasError: See `training.loop.train`, `data.dataset.load_dataset`.
        KeyboardInterrupt: Stopped on request, with a checkpoint in the folder.
        SystemExit: Another process has failed, and tells why.
    """
    from elastic_nas.resume import check_names, check_record, claim, is_finished, mark
    from elastic_nas.training.agreement import normalised_alike
    from elastic_nas.training.checkpoints import Checkpoints
    from elastic_nas.training.distributed import joined
    from elastic_nas.training.loop import train as train_loop
    from elastic_nas.training.start import beginning, space_for
    from elastic_nas.training.trainer import Trainer

    run = RunFolder(folder)
    named_in = named_in or (str(run.run_file) if resume else "")
    with joined(config.train.device) as ranks, ExitStack() as held:
        with ranks.together():
            check_names(config, named_in)
        config, begun = claim(run, config, ranks, held, resume=resume)
        data = images_to_train(run, config, ranks, begun=begun, origin=origin)
        data = normalised_alike(ranks, data)
        space = ranks.told(lambda: space_for(data, config.space))
        with ranks.together():
            config, network = _network_for(data, config, space, named_in)
            begin = beginning(config.train.init, network) if ranks.first and not begun else None
            trainer = Trainer(network, data, config.train, config.seed, begin, ranks=ranks)
        trainer.agree()
        trainer.config = trainer.resolved()

        def finished() -> bool:
            if begun:
                check_record(run, network)
                at = Checkpoints(folder, trainer).restore()
                if is_finished(run, at, data.labels, trainer.config.steps or 0):
                    follow(run, config.data)
                    return True
            mark(run)
            run.write_record(network, data.labels)
            if not begun or not run.images.is_file():
                write_atomic(run.images, data.record.encoded())
            write_run_file(run, config.model_copy(update={"train": trainer.config}))
            return False

        if not ranks.told(finished):
            train_loop(trainer, folder, resume=begun)
    return run


def _network_for(
    data: "Dataset", config: "RunConfig", space: str, named_in: str
) -> tuple["RunConfig", Network]:
    """The network for these images, and the run file with its space; says what they are."""
    from elastic_nas.data.told import table

    network = Network(plugins.anchored(space), len(data.labels), named_in=named_in)
    say(table(data))
    return config.model_copy(update={"space": network.space_name}), network


def follow(run: RunFolder, data: "DataConfig") -> None:
    """Write the new place of a finished run's images into its run file, where they were moved."""
    from elastic_nas.run_file import read_run_file

    config = read_run_file(run.run_file)
    place = anchored(data.source)
    if run.images.is_file() and place != anchored(config.data.source):
        write_run_file(run, config.model_copy(update={"data": data}))
        say(f"{run.run_file} names {place} as the place of the images now.")


def write_run_file(run: RunFolder, config: "RunConfig") -> None:
    """Write the full run file, with the paths in it made absolute.

    That images may be missing is said for one command, and not kept: later losses are told again.
    """
    from elastic_nas.run_file import dump_run

    init = None if config.train.init is None else os.path.realpath(config.train.init)
    places = {
        "data": config.data.model_copy(
            update={"source": anchored(config.data.source), "missing": "refuse"}
        ),
        "train": config.train.model_copy(update={"init": init}),
    }
    write_atomic(run.run_file, dump_run(config.model_copy(update=places)))


def judge_of(run: RunFolder, config: "RunConfig", data: "Dataset") -> "Judge":
    """The run's supernet with the images its children are calibrated and judged on.

    Raises:
        CheckpointError: See `load_checkpoint`.
        ConfigError: The weights were trained with another seed, or on other images.
    """
    from elastic_nas.training.belongs import check_belongs
    from elastic_nas.training.checkpoint import load_checkpoint, read_facts
    from elastic_nas.training.device import device_of, set_threads
    from elastic_nas.training.evaluation import Judge

    set_threads(config.train.threads)
    check_belongs(read_facts(run.weights), data, config.seed, run.path)
    supernet = run.network.supernet()
    at = load_checkpoint(run.weights, run.network, supernet)
    if at.step < at.steps:
        say(f"note: training stopped at step {at.step} of {at.steps}; go on with --resume.")
    return Judge(
        run.network,
        supernet,
        data,
        calibration_images=config.search.calibration_images,
        validation_images=config.search.validation_images,
        device=device_of(config.train.device),
    )


def ties_of(run: RunFolder, judge: "Judge") -> dict[str, str]:
    """Hashes of all that an accuracy depends on."""
    from elastic_nas.data.first_version import split_sha256

    images = (judge.validation, judge.calibration)
    old = not run.images.is_file()
    split, calibration = (split_sha256(of) if old else of.sha256 for of in images)
    return {
        "weights": sha256_of(run.weights),
        "split": split,
        "calibration": judge.settings_hash(calibration),
    }


def search(
    run: RunFolder,
    device_name: str,
    budgets: Budgets,
    *,
    evaluations: int | None = None,
    strategy: str | None = None,
    table: Path | None = None,
    changes: list[str] | None = None,
) -> list[Answer]:
    """Search the run's children on a device; returns the Pareto front, fastest first.

    What is evaluated already (for any device) is reused. Where this machine is the device, the
    children of the front are measured; while one breaks its bound under a latency budget, the
    search goes on with the bound that follows. Leaves ``history.jsonl``, the front and its picture
    in the run folder.

    Args:
        run: A trained run.
        device_name: A hardware profile's name or path.
        budgets: Upper limits.
        evaluations: Children to know in the end; by default the run file's.
        strategy: Such as ``evolution``; by default the run file's.
        table: A latency table to use.
        changes: ``key=value`` changes of the run file, see `run_images.config_of`.

    Raises:
        InfeasibleBudget: The smallest child breaks a budget.
        TableError: See `targets.open_target`.
    """
    from elastic_nas.search.driver import Evaluation, check_feasible
    from elastic_nas.search.driver import search as drive

    network = run.network
    target = open_target(network, device_name, table=table, run=run)
    budgets = target.limited(budgets)
    check_feasible(network.dims, target.costs, budgets)
    for note in target.notes:
        say(f"note: {note}.")
    config = config_of(run, changes)
    plugin = plugins.create(
        "strategies",
        strategy or config.search.strategy,
        named_in="" if strategy else str(run.run_file),
        dims=network.dims,
        rng=Random(f"strategy-{config.seed}"),
    )
    total = config.search.evaluations if evaluations is None else evaluations
    with locked(run.path):
        data = images_of(run, config, command=f"elastic-nas search {run.path} --device DEVICE")
        judge = judge_of(run, config, data)
        ties = ties_of(run, judge)
        history = History(run.history, ties, network.dims)
        if history.foreign:
            say(f"{history.foreign} rows of other weights, images or settings are left aside.")
        write_json(run.ties, ties)
        rng = Random(f"search-{config.seed}")

        def evaluate(genotype: Genotype) -> Evaluation:
            started = time.perf_counter()
            accuracy = judge.evaluate(genotype)
            return Evaluation(accuracy, len(judge.validation), time.perf_counter() - started)

        more, broken = 0, True
        while broken:  # each time by children that were not measured before
            drive(network.dims, plugin, evaluate, target.costs, budgets, history, total + more, rng)
            front = _front(run, target, budgets, history)
            broken = bool(measure_finalists(run, target, [a.genotype for a in reversed(front)]))
            target = open_target(network, device_name, table=table, run=run)
            if budgets.latency_ms is not None and more < MORE_TIMES * MORE:
                more += MORE
        return _write_front(run, target, budgets, history)


def _front(run: RunFolder, target: Target, budgets: Budgets, history: History) -> list[Answer]:
    """The Pareto front under the budgets, fastest first."""
    from elastic_nas.search.front import pareto_front

    answers = answers_of(list(history), run, target, budgets)
    chosen = pareto_front(answers.accuracy.tolist(), answers.bound_ms.tolist())
    return [answers[index] for index in chosen]


def _write_front(
    run: RunFolder, target: Target, budgets: Budgets, history: History
) -> list[Answer]:
    """The Pareto front under the budgets, as a file and as a picture."""
    from elastic_nas.pictures import plot
    from elastic_nas.search.front import write_front

    front = _front(run, target, budgets, history)
    write_front(
        run.front(target.device.name),
        device=target.device.name,
        table_sha256=target.table_sha256,
        ties=history.ties,
        budgets=budgets,
        children=[answer.plain() for answer in front],
    )
    plot(run, target, list(history), history.ties["weights"])
    return front


def query(
    run: RunFolder,
    device_name: str,
    budgets: Budgets,
    *,
    table: Path | None = None,
    level: float = LEVEL,
) -> tuple[Answers, Target]:
    """All evaluated children within the budgets, the best first, by their latency *bound*.

    Args:
        run: A searched run.
        device_name: A hardware profile's name or path.
        budgets: Upper limits.
        table: A latency table to use.
        level: The share of random children that keep the bound.

    Raises:
        ConfigError: No bound can be of this level.
        InfeasibleBudget: There is none.
        RunFolderError: Nothing has been searched yet.
    """
    target = open_target(run.network, device_name, table=table, run=run, level=level)
    return answers_of(searched_rows(run), run, target, budgets), target


def answers_of(rows: list[Row], run: RunFolder, target: Target, budgets: Budgets) -> Answers:
    """The evaluated children within the budgets and the device's own limits, the best first."""
    notes, limits = target.notes, target.limited(budgets)
    return answer_query(
        rows, run.network, target.costs, limits, lambda _: notes, target.measured_ms
    )


def searched_rows(run: RunFolder) -> list[Row]:
    """What the latest search knows.

    Raises:
        RunFolderError: Nothing has been searched yet, or not since the weights changed.
    """
    ties = run.read_ties()
    if ties is None:
        raise RunFolderError(
            f"nothing has been searched in {run.path} yet; run elastic-nas search {run.path} "
            "--device DEVICE first."
        )
    return read_history(run.history, ties, run.network.dims)
