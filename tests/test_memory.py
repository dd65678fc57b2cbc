"""A step that does not fit: what it says, and that the figures are right."""

import weakref

import pytest
import torch

from elastic_nas.config import AugmentConfig, TrainConfig
from elastic_nas.data.dataset import load_dataset
from elastic_nas.errors import ConfigError
from elastic_nas.network import Network
from elastic_nas.training import memory
from elastic_nas.training.loop import train
from elastic_nas.training.memory import explained, fixed_bytes, saved_bytes
from elastic_nas.training.trainer import Trainer

NETWORK = Network("tiny:size=8", 10)
CPU_WORDS = "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def trainer(digits):
    return trainer_of(digits)


def trainer_of(digits, **changes) -> Trainer:
    fields = {"steps": 4, "batch_size": 24, "augment": AugmentConfig(strong="none"), "threads": 1,
              "validations": 0}  # fmt: skip
    return Trainer(NETWORK, digits, TrainConfig(**{**fields, **changes}), 0)


def images(n: int) -> torch.Tensor:
    return torch.zeros(n, 3, 8, 8, dtype=torch.uint8)


def failing(trainer, error, n=24) -> str:
    with pytest.raises(ConfigError) as caught, explained(trainer, images(n)):
        raise error
    assert caught.value.__suppress_context__
    return str(caught.value)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError(CPU_WORDS)]
)
def test_a_lack_of_memory_says_what_to_set(trainer, error):
    message = failing(trainer, error)
    assert "a step of 24 images in 1 part needs more memory than this machine has" in message
    assert "--resume --set train.accumulate=2" in message
    assert "--set train.batch_size=12 --set train.accumulate=1" in message


def test_other_errors_pass_as_they_are(trainer):
    for error in (RuntimeError("size mismatch"), ValueError("out of memory")):
        with pytest.raises(type(error)) as caught, explained(trainer, images(24)):
            raise error
        assert caught.value is error


def test_the_next_number_of_parts_divides_the_share_of_a_process(digits):
    trainer = trainer_of(digits, batch_size=18, accumulate=2)
    assert "train.accumulate=6 (batch norm then sees 3" in failing(trainer, MemoryError(), 18)
    assert "Not even 2 images fit" in failing(trainer_of(digits, batch_size=2), MemoryError(), 2)
    prime = failing(trainer_of(digits, batch_size=14), MemoryError(), 7)  # 2 processes
    assert "Use a smaller batch: --set train.batch_size=6 --set train.accumulate=1" in prime


@pytest.mark.parametrize(("fits", "cut"), [(23, 2), (12, 2), (11, 3), (8, 3), (7, 4), (2, 12)])
def test_on_a_gpu_the_advice_is_computed(trainer, monkeypatch, fits, cut):
    fixed, each = fixed_bytes(trainer), saved_bytes(trainer, images(2)) / 2
    free = int(1.25 * (fixed + (fits + 0.5) * each))
    monkeypatch.setattr(trainer, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr(memory, "saved_bytes", lambda trainer, x: int(each * len(x)))
    message = failing(trainer, torch.OutOfMemoryError("CUDA out of memory."))
    assert f"train.accumulate={cut} " in message
    assert f"train.batch_size={fits} " in message
    assert "GiB of the GPU" in message


def test_what_the_backward_pass_needs_is_counted(trainer):
    two, six = saved_bytes(trainer, images(2)), saved_bytes(trainer, images(6))
    # What does not grow with the batch is small: statistics of norms, sizes.
    each = (six - two) / 4
    assert two == pytest.approx(2 * each, rel=0.2)
    assert each > 3 * 8 * 8 * 4  # the images alone
    weights = sum(p.numel() * 4 for p in trainer.supernet.parameters())
    assert fixed_bytes(trainer) == 3 * weights


def test_a_training_that_ran_out_goes_on_in_parts(digits, tmp_path, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_gradients", out_of_memory)
        with pytest.raises(ConfigError, match=r"accumulate=2 "):
            train(trainer_of(digits), tmp_path, resume=False)
    train(trainer_of(digits, accumulate=2), tmp_path, resume=False)


def test_what_the_failed_step_held_is_let_go_before_the_figures_are_taken(trainer, monkeypatch):
    held, seen = [], []

    def step():
        activations = torch.zeros(1000)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(memory, "_advice", lambda *_: str(seen.append(held[0]())))
    with pytest.raises(ConfigError), explained(trainer, images(24)):
        step()
    assert seen == [None]
