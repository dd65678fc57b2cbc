"""What the guard notices, what it lets pass, and how a training goes back."""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from elastic_nas.config import AugmentConfig, GuardConfig, TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.errors import TrainingDiverged
from elastic_nas.network import Network
from elastic_nas.training import guard as guard_module
from elastic_nas.training.checkpoint import FILE_NAME, read_progress
from elastic_nas.training.checkpoints import Checkpoints
from elastic_nas.training.curves import Curves
from elastic_nas.training.guard import GRACE, LONGEST, PATIENCE, Guard, all_finite
from elastic_nas.training.journal import ROLLED_BACK, Journal, read_log
from elastic_nas.training.loop import train
from elastic_nas.training.trainer import Trainer

NETWORK = Network("tiny:size=8", 10)
CHANCE = math.log(10)
NEVER = 1e9


def watched(losses, guard: Guard | None = None) -> list[str | None]:
    """What the guard says of losses of the largest child, one after the other."""
    guard = guard or Guard(GuardConfig(), 10)
    return [guard.trouble({"largest": loss}, 1.0) for loss in losses]


# --- what it notices ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_number_is_trouble_at_once_wherever_it_stands(bad):
    for losses, norm in (({"largest": bad, "smallest": 1.0}, 1.0),
                         ({"largest": 1.0, "smallest": bad}, 1.0),
                         ({"largest": 1.0, "smallest": 1.0}, bad)):  # fmt: skip
        assert "NaN or infinity" in Guard(GuardConfig(), 10).trouble(losses, norm)


def test_one_odd_batch_goes_by_and_lasting_ones_are_a_spike():
    usual, odd = [1.0] * GRACE, 3.1
    assert not any(watched([*usual, *[odd] * (PATIENCE - 1), 1.0, *[odd] * (PATIENCE - 1)]))
    said = watched([*usual, *[odd] * PATIENCE])
    assert not any(said[:-1])
    assert said[-1] == "the loss of the largest child jumped from 1 to 3.1"
    assert not any(watched([*usual, *[2.9] * 10]))
    assert watched([*usual, *[2.9] * PATIENCE], Guard(GuardConfig(spike=2.0), 10))[-1]


def test_every_kind_of_child_is_watched():
    guard = Guard(GuardConfig(), 10)
    for _ in range(GRACE):
        assert guard.trouble({"largest": 1.0, "random": 2.0, "smallest": 1.0}, 1.0) is None
    said = [guard.trouble({"largest": 1.0, "random": 2.0, "smallest": 4.0}, 1.0) for _ in range(3)]
    assert said[-1] == "the loss of the smallest child jumped from 1 to 4"


def test_nothing_is_a_spike_at_the_start_nor_near_zero():
    assert not any(watched([0.5, *[2.2] * (GRACE - 1)]))
    assert not any(watched([0.001] * 50 + [0.5] * 50))  # 500 times as much, and still good


def test_a_spike_is_no_part_of_what_is_usual():
    guard = Guard(GuardConfig(), 10)
    watched([1.0] * GRACE + [1e6] * (PATIENCE - 1), guard)
    assert guard.state["means"] == {"largest": 1.0}
    assert not guard.calm
    watched([1.0], guard)
    assert guard.calm


def test_a_training_that_starts_far_beyond_guessing_is_stopped_after_the_start():
    said = watched([76.0] * (GRACE + PATIENCE))
    assert not any(said[:-1])
    assert said[-1]


def test_a_network_that_falls_back_to_guessing_is_noticed():
    learned = [2.3 - 0.01 * n for n in range(80)]
    said = watched([*learned, *[CHANCE] * 300])
    noticed = next(n for n, words in enumerate(said) if words)
    assert "fell back to guessing (loss 2.2" in said[noticed]
    assert 20 < noticed - len(learned) < 100
    assert not any(watched([*learned, CHANCE, 1.5, CHANCE, CHANCE, *[1.6] * 50]))
    assert not any(watched([CHANCE] * 300))  # it never knew anything
    assert not any(watched([2.0] * 100 + [CHANCE] * 300))  # nor here


def test_the_first_batches_are_no_collapse():
    """Two classes: a lucky batch is far below chance, the next ones are not."""
    assert not any(watched([0.54, *[0.75, 0.8, 0.7, 0.68] * 5], Guard(GuardConfig(), 2)))


def test_nothing_is_stored_while_the_network_sinks_but_not_for_ever():
    guard = Guard(GuardConfig(), 10)
    watched([1.5] * GRACE, guard)
    assert guard.calm
    watched([0.95 * CHANCE] * 60, guard)  # its mean ends between 0.9 and 0.97 of chance
    assert not guard.calm
    watched([0.95 * CHANCE] * LONGEST, guard)
    assert guard.calm
    watched([1.5] * 40, guard)
    assert guard.calm


def test_kinds_of_children_may_come_and_go():
    guard = Guard(GuardConfig(), 10)
    watched([1.0] * GRACE, guard)
    for _ in range(PATIENCE + 1):
        assert guard.trouble({"random": 2.0, "smallest": 4.0}, 1.0) is None  # new, so not judged
        assert list(guard.state["means"]) == ["random", "smallest"]


@given(st.lists(st.floats(0, 4), min_size=1, max_size=120))
def test_running_means_equal_a_plain_loop(losses):
    guard = Guard(GuardConfig(spike=1e9), 10)
    watched(losses, guard)
    expected = losses[0]
    for n, loss in enumerate(losses):
        share = 1 / (n + 1) if n < 20 else 1 / 20
        expected = (1 - share) * expected + share * loss
    assert guard.state["means"]["largest"] == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.sampled_from([0.2, 1.0, 2.3, 7.5]), max_size=150), st.integers(0, 150))
def test_a_stored_guard_decides_as_one_that_went_on(losses, cut):
    whole = watched(losses)
    before, after = Guard(GuardConfig(), 10), Guard(GuardConfig(), 10)
    first = watched(losses[:cut], before)
    after.restore(json.loads(json.dumps(before.state)))
    assert first + watched(losses[cut:], after) == whole


def test_a_stored_state_stays_as_it_is():
    guard = Guard(GuardConfig(), 10)
    watched([1.0, 2.0], guard)
    state = guard.state
    copy = json.loads(json.dumps(state))
    other = Guard(GuardConfig(), 10)
    other.restore(state)
    watched([9.0], other)
    watched([9.0], guard)
    assert state == copy
    other.restore({})  # of a checkpoint without a guard
    assert (other.rate, other.rolled_back) == (1.0, 0)


def test_the_rate_falls_with_each_roll_back_even_to_the_same_checkpoint():
    guard = Guard(GuardConfig(rate_factor=0.1, most=2), 10)
    stored = guard.state
    guard.roll_back(stored)
    guard.roll_back(stored)
    assert (guard.rate, guard.rolled_back) == (pytest.approx(0.01), 2)
    assert not guard.may_roll_back
    assert not Guard(GuardConfig(action="stop"), 10).may_roll_back


def test_finite_is_every_element():
    assert all_finite([torch.ones(3), torch.zeros(2, 2)])
    assert not all_finite([torch.ones(3), torch.tensor([[0.0, math.inf]])])
    assert not all_finite([torch.tensor([math.nan])])


# --- what a training does then ------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(Curves, "draw", lambda *_, **__: None)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def trainer_of(digits, **changes) -> Trainer:
    fields = {"steps": 8, "batch_size": 8, "augment": AugmentConfig(strong="none"), "threads": 1,
              "validations": 0, "checkpoint_seconds": 1e-9, "random_children": 1}  # fmt: skip
    return Trainer(NETWORK, digits, TrainConfig(**{**fields, **changes}), 0)


def poisoned(trainer: Trainer, at: int, above: float, value: float = math.nan) -> Trainer:
    """Its step number `at` goes wrong while the rate's factor is larger than `above`."""
    step = trainer.step

    def spoiled(number, steps, x, labels, factor, asks):
        result = step(number, steps, x, labels, factor, asks)
        if number < at or factor <= above:
            return result
        with torch.no_grad():
            next(trainer.supernet.parameters()).fill_(3.0)  # weights that must not be kept
        return result._replace(losses=torch.full_like(result.losses, value))

    trainer.step = spoiled
    return trainer


def run(trainer: Trainer, folder: Path, *, resume: bool = False) -> Trainer:
    folder.mkdir(exist_ok=True)
    train(trainer, folder, resume=resume)
    return trainer


@cache
def by_hand(high: int, low: int = 0, factor: float = 0.5) -> dict[str, torch.Tensor]:
    """Weights after `high` steps with the whole rate and `low` steps with a lower one."""
    trainer = trainer_of(load_dataset("digits"))
    for step, batch in enumerate(trainer.stream.batches(0, high + low)):
        trainer.step(step, 8, *batch, 1.0 if step < high else factor)
    return trainer.supernet.state_dict()


def equal(trainer: Trainer, expected: dict[str, torch.Tensor]) -> bool:
    found = trainer.supernet.state_dict()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def test_it_goes_back_to_the_last_checkpoint_with_a_lower_rate(digits, tmp_path, capsys):
    trainer = run(poisoned(trainer_of(digits), at=5, above=0.5), tmp_path / "run")
    assert equal(trainer, by_hand(5, 3))
    said = capsys.readouterr().err
    assert "step 6: NaN or infinity" in said
    assert "Going back to step 5; from there on the learning rate is 0.5 of the run file's" in said
    (event,) = [row for row in read_log(tmp_path / "run" / "log.jsonl") if "event" in row]
    assert (event["event"], event["step"], event["at"]) == (ROLLED_BACK, 5, 6)
    assert event["rate_factor"] == 0.5


def test_without_a_checkpoint_it_begins_anew(digits, tmp_path):
    trainer = trainer_of(digits, checkpoint_seconds=NEVER)
    run(poisoned(trainer, at=3, above=0.25), tmp_path / "run")
    assert equal(trainer, by_hand(0, 8, 0.25))


@pytest.mark.parametrize("seconds", [1e-9, NEVER])
def test_a_kill_after_going_back_brings_no_higher_rate(digits, tmp_path, monkeypatch, seconds):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    changes = {"checkpoint_seconds": seconds}
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "go_back", killed)
        with pytest.raises(KeyboardInterrupt):
            run(poisoned(trainer_of(digits, **changes), at=5, above=0.5), tmp_path / "run")
    # Without poison: a rate of 1 would pass, and show.
    resumed = run(trainer_of(digits, **changes), tmp_path / "run", resume=True)
    assert equal(resumed, by_hand(5, 3) if seconds < 1 else by_hand(0, 8))


def test_a_roll_back_loses_what_is_no_good(digits, tmp_path):
    """Between the first sign of a spike and its end nothing is stored."""
    trainer = poisoned(trainer_of(digits), at=3, above=0.5, value=100.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_module, "GRACE", 2)
        run(trainer, tmp_path / "run")
    (event,) = [row for row in read_log(tmp_path / "run" / "log.jsonl") if "event" in row]
    assert (event["step"], event["at"]) == (3, 3 + PATIENCE)
    assert "jumped" in event["trouble"]
    assert equal(trainer, by_hand(3, 5))


def test_weights_that_are_no_numbers_are_never_stored(digits, tmp_path):
    trainer = trainer_of(digits)
    step = trainer.step

    def spoiled(number, steps, x, labels, factor, asks):
        result = step(number, steps, x, labels, factor, asks)
        if number == 4 and factor == 1:
            with torch.no_grad():
                next(trainer.supernet.parameters()).view(-1)[0] = math.inf
        return result

    trainer.step = spoiled
    run(trainer, tmp_path / "run")
    assert equal(trainer, by_hand(4, 4))


@pytest.mark.parametrize(("action", "most"), [("stop", 3), ("roll_back", 2), ("roll_back", 0)])
def test_it_stops_with_the_last_good_weights(digits, tmp_path, action, most):
    guard = GuardConfig(action=action, most=most)
    trainer = poisoned(trainer_of(digits, guard=guard), at=5, above=0.0)
    with pytest.raises(TrainingDiverged, match="step 6: NaN or infinity") as caught:
        run(trainer, tmp_path / "run")
    message = str(caught.value)
    assert "last good checkpoint is kept" in message
    if action == "roll_back" and most:
        assert "It went back 2 times, in the end with 0.25 of the learning rate" in message
        assert "--set train.learning_rate=0.0083" in message
        assert "--resume --set train.guard.most=5" in message
    else:
        assert "--resume --set train.learning_rate=0.033" in message
    file = tmp_path / "run" / FILE_NAME
    assert read_progress(file, NETWORK).step == 5
    stored = load_file(file)
    assert all(torch.equal(stored[f"weights.{k}"], v) for k, v in by_hand(5).items())


def test_a_stopped_training_goes_on_with_the_advice(digits, tmp_path):
    stop = GuardConfig(action="stop")
    with pytest.raises(TrainingDiverged):
        run(poisoned(trainer_of(digits, guard=stop), at=5, above=0.5), tmp_path / "run")
    resumed = poisoned(trainer_of(digits), at=5, above=0.5)
    run(resumed, tmp_path / "run", resume=True)
    assert equal(resumed, by_hand(5, 3))


def test_nothing_is_stored_while_a_spike_is_suspected(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(guard_module, "GRACE", 2)
    trainer = poisoned(trainer_of(digits), at=4, above=0.5, value=100.0)
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, at, *a: (saved.append(at.step), save(self, at, *a))
    )
    run(trainer, tmp_path / "run")
    assert saved == [1, 2, 3, 4, 4, 5, 6, 7, 8]


def test_a_noisy_but_healthy_training_raises_no_alarm(digits, tmp_path, capsys):
    """High rate from the first step on, small batches."""
    changes = {"steps": 40, "learning_rate": 0.5, "warmup": 0.0, "checkpoint_seconds": NEVER}
    run(trainer_of(digits, guard=GuardConfig(action="stop"), **changes), tmp_path / "run")
    assert "Going back" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("distillation", ["soft", "alpha"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_longer_healthy_trainings_raise_no_alarm(digits, tmp_path, rate, distillation):
    changes = {"steps": 400, "batch_size": 32, "learning_rate": rate, "warmup": 0.0}
    guard = GuardConfig(action="stop")
    trainer = trainer_of(digits, guard=guard, distillation=distillation, **changes,
                         checkpoint_seconds=NEVER)  # fmt: skip
    run(trainer, tmp_path / "run")
