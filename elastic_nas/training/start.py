"""What a training begins with: a space, and weights where they come from another run."""

from collections.abc import Callable
from pathlib import Path

from elastic_nas.data.choose import choose_space
from elastic_nas.data.dataset import Dataset
from elastic_nas.errors import ConfigError
from elastic_nas.network import Network
from elastic_nas.nn.importance import sort_channels
from elastic_nas.nn.supernet import Supernet
from elastic_nas.nn.transfer import adopt, inherit
from elastic_nas.progress import say
from elastic_nas.runs import RunFolder, open_run
from elastic_nas.training.checkpoint import load_checkpoint


def space_for(data: Dataset, wanted: str | None) -> str:
    """The space that is wanted, or one that fits the images; says why."""
    if wanted is not None:
        return wanted
    space, reason = choose_space(data)
    say(reason)
    return space


def beginning(init: str | None, network: Network) -> Callable[[Supernet], None] | None:
    """What fills a fresh supernet with the weights of the run that `init` names; None: nothing.

    Raises:
        UnknownName: There is no such run.
    """
    if init is None:
        return None
    origin = open_run(Path(init))

    def begin(supernet: Supernet) -> None:
        say(f"beginning with {begin_with(origin, network, supernet)} of {origin.path}.")

    return begin


def begin_with(origin: RunFolder, network: Network, supernet: Supernet) -> str:
    """Fill a fresh supernet with the weights of another run; returns what they are.

    Of the same network: all weights. Of the space that `network` is one child of: that child's.
    Of the largest child of `network` alone: the whole supernet's, channels sorted by importance
    (Once-for-All, sec. 3.4), so that smaller children keep the most important ones.

    Args:
        origin: The other run.
        network: Of the supernet.
        supernet: Filled in place.

    Raises:
        ConfigError: The other run is of another space, or another number of classes.
        CheckpointError: Its weights are damaged.
    """
    theirs = origin.network
    if theirs.classes != network.classes:
        raise ConfigError(
            f"{origin.path} tells {theirs.classes} classes apart, these images have "
            f"{network.classes}: its weights do not fit. Begin with a run of the same classes."
        )
    source = theirs.supernet()
    load_checkpoint(origin.weights, theirs, source)
    if theirs.identity == network.identity:
        supernet.load_state_dict(source.state_dict())
        return "the weights"
    if network is not network.whole and network.whole.identity == theirs.identity:
        inherit(supernet, source, network.space.genotype)
        return "the inherited weights of this child"
    if _is_largest_alone(theirs, network):
        adopt(supernet, source)
        sort_channels(supernet)
        return "the largest child, channels sorted by importance,"
    raise ConfigError(
        f"{origin.path} holds {theirs.space_name}, which a training of {network.space_name} cannot "
        f"begin with: it takes a run of {network.whole.space_name}"
        + (", or of its largest child alone." if network is network.whole else ", or of the child.")
    )


def _is_largest_alone(theirs: Network, network: Network) -> bool:
    alone = theirs is not theirs.whole and theirs.whole.identity == network.identity
    return alone and theirs.space.genotype == network.largest
