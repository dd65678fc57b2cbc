"""Two processes train as one: the same numbers, the same children, the same end."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import distributed_worker as worker
import numpy as np
import pytest
import torch
from distributed_worker import BATCH, CLI_STEPS, NETWORK, STEPS
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from elastic_nas.data.dataset import load_dataset
from elastic_nas.errors import ConfigError
from elastic_nas.nn.child import randomise
from elastic_nas.nn.sync_norm import sync_norm
from elastic_nas.resume import JOB
from elastic_nas.training.distributed import ALONE, Ranks, joined
from elastic_nas.training.step import normalise
from elastic_nas.training.trainer import Trainer

TESTS = Path(__file__).parent
PARTS = 16  # times that the worker's processes meet


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Ten classes of twenty 8 px images that differ in brightness."""
    folder, rng = tmp_path_factory.mktemp("images") / "photos", np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(20 * label, 20 * label + 75, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    return folder


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Found:
    """What the two processes left: plain facts, tensors, and the folders of their runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
        self.tensors = [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]

    def both(self, key: str) -> list[Any]:
        return [facts[key] for facts in self.facts]

    def ends(self, name: str) -> list[dict[str, Any]]:
        """How a command ended in the two processes."""
        return [facts["commands"][name] for facts in self.facts]


@pytest.fixture(scope="module")
def found(tmp_path_factory, photos) -> Found:
    """Of one start of `distributed_worker.py` in two processes."""
    folder, ports = tmp_path_factory.mktemp("found"), ",".join(free_ports(PARTS))
    command = [
        sys.executable,
        str(TESTS / "distributed_worker.py"),
        str(photos),
        str(folder),
        ports,
    ]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env={**shared, "RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr
    return Found(folder)


# --- one step ---------------------------------------------------------------------------------


HALVES = [[*range(8)], [*range(8, 16)]]
JOINED = [[*range(4), *range(8, 12)], [*range(4, 8), *range(12, 16)]]
"""Images that are normalised together: those that a process takes, or, with synchronised norms and
two parts, a part of one and of the other."""


def reference(photos: Path, pieces: list[list[int]]) -> dict[str, torch.Tensor]:
    """What `worker.steps` finds, in one process: gradients are the means of those of the pieces."""
    with worker.in_float64():
        trainer = Trainer(NETWORK, load_dataset(str(photos)), worker.config(), 0)
        supernet, preprocess = trainer.supernet, trainer.data.preprocess
        randomise(supernet, 1)
        supernet.double()
        for step, (images, labels) in enumerate(trainer.stream.batches(0, STEPS)):
            trainer.optimizer.zero_grad()
            x = normalise(images, preprocess.mean, preprocess.std)
            lessons = trainer.sampler.lessons(step)
            losses = [naive_losses(supernet, lessons, x[rows], labels[rows]) for rows in pieces]
            mean = torch.stack(losses).mean(dim=0)
            mean.sum().backward()
            trainer.optimizer.step()
    named = list(supernet.named_parameters())
    found = {f"weight.{name}": p.detach() for name, p in named}
    found |= {f"grad.{name}": p.grad for name, p in named}
    norm = torch.stack([p.grad.norm() for p in supernet.parameters()]).norm()
    return {**found, "losses": mean.detach(), "norm": norm}


def naive_losses(supernet, lessons, x, labels) -> torch.Tensor:
    logits = [supernet(x, lesson.genotype) for lesson in lessons]
    teacher = logits[0].softmax(1).detach()
    first = F.cross_entropy(logits[0], labels, label_smoothing=0.1)
    return torch.stack([first, *(F.cross_entropy(other, teacher) for other in logits[1:])])


@pytest.mark.parametrize(("name", "pieces"), [("plain", HALVES), ("sync", JOINED)])
def test_five_steps_are_those_of_one_process(found, photos, name, pieces):
    expected = reference(photos, pieces)
    for tensors in found.tensors:
        part = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(name)}
        assert part.keys() == expected.keys()
        for key, value in expected.items():
            assert value.dtype == part[key].dtype == torch.float64
            torch.testing.assert_close(part[key], value, rtol=1e-10, atol=1e-10)


def test_one_collective_a_step_and_the_same_children(found):
    for collectives, children in found.both("plain"):
        assert collectives == [["all_reduce"]] * STEPS
        assert children == found.facts[0]["plain"][1]
    one, other = found.both("best_up")
    assert one == other
    assert one[1][0] != one[1][1]


def test_parameters_without_gradient_stay_without(found):
    expected = [[1.5, 1.5], None, [5.0], [2.0]]
    assert found.both("missing") == [expected, expected]


def test_dropout_differs_between_processes_and_is_reproducible(found):
    (one, again), (other, _) = found.both("draws")
    assert one == again
    assert one[0] != other[0]


def test_what_one_process_knows_of_the_optimiser_all_know(found):
    names = [name for name in found.tensors[0] if name.startswith(("sgd", "rmsprop", "adamw"))]
    kinds = {
        (name.split(".")[0], name.rpartition(".")[2]) for name in names if "average" not in name
    }
    assert kinds == {
        ("sgd", "momentum_buffer"), ("rmsprop", "step"), ("rmsprop", "square_avg"),
        ("rmsprop", "momentum_buffer"), ("adamw", "step"), ("adamw", "exp_avg"),
        ("adamw", "exp_avg_sq"),
    }  # fmt: skip
    one, other = found.tensors
    assert all(torch.equal(one[name], other[name]) for name in names)
    assert all(one[name] == 1 for name in names if name.endswith("step"))
    assert any(one[name].any() for name in names if name.startswith("sgd"))


def test_an_epoch_is_as_long_as_that_of_the_process_with_the_fewest_images(found):
    least = 60 // BATCH
    assert found.both("fewer") == [[least, 3 * least]] * 2
    assert f"for {least} to {100 // BATCH} steps an epoch" in found.facts[0]["said"]
    assert found.facts[1]["said"] == ""


# --- norms and judging ------------------------------------------------------------------------


def test_synchronised_norms_are_exact_for_unequal_numbers_of_images(found):
    x = torch.cat([worker.unequal(0), worker.unequal(1)]).requires_grad_()
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    bias = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5)
    (y**3).sum().backward()
    one, other = found.tensors
    for key, value in (("y", y.detach()), ("x.grad", x.grad)):
        torch.testing.assert_close(torch.cat([one[key], other[key]]), value, rtol=0, atol=1e-10)
    for key, value in (("weight.grad", weight.grad), ("bias.grad", bias.grad)):
        torch.testing.assert_close(one[key] + other[key], value, rtol=1e-12, atol=1e-10)


def test_synchronised_norms_keep_the_variance_of_far_means(found):
    y = torch.cat([tensors["far"] for tensors in found.tensors]).double()
    x = torch.cat([worker.far(0), worker.far(1)]).double()
    assert (x.mean() / worker.far(0).std()).item() == pytest.approx(worker.FAR, rel=0.02)
    expected = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    variance = y.var((0, 2, 3), correction=0)  # 1 / (1 + the relative error of the variance)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=5e-5, atol=0)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-4)


def test_gradients_of_synchronised_norms():
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3, 2, 2), (3,), (3,))
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]
    assert torch.autograd.gradcheck(lambda *tensors: sync_norm(ALONE, 1e-5, *tensors), inputs)


def test_judging_together_gives_what_one_alone_gets(found):
    for tensors in found.tensors:
        kinds = ("running_mean", "running_var")
        names = [name for name in tensors if name.startswith("both.") and name.endswith(kinds)]
        assert len(names) > 20
        for name in names:
            alone = tensors[name.replace("both.", "alone.")]
            torch.testing.assert_close(tensors[name], alone, rtol=1e-6, atol=1e-7)
        assert torch.equal(tensors["both.40.right"], tensors["alone.40.right"])
        assert 0 < tensors["both.40.right"].float().mean() < 1
        x = torch.cat([worker.unequal(0), worker.unequal(1)]).transpose(0, 1).flatten(1)
        torch.testing.assert_close(tensors["mean"], x.mean(1), rtol=1e-12, atol=0)
        torch.testing.assert_close(tensors["variance"], x.var(1, correction=0), rtol=1e-12, atol=0)


# --- how trainings end --------------------------------------------------------------------------


def test_an_error_anywhere_ends_all_and_is_told_once(found):
    assert found.both("ended") == [
        ["fine", "SystemExit(1)", "DataError('of 0')"],
        ["fine", "DataError('of 1')", "SystemExit(1)"],
    ]


@pytest.mark.parametrize(("name", "teller", "said"), [
    ("batch", 0, "train.batch_size=16 or 18"), ("foreign", 0, "holds 'mine.txt'"),
    ("data", 1, "an image is broken"), ("mid", 1, "an image is broken"),
    ("diverged", 0, "NaN or infinity"), ("stop", 0, "train images cannot be read, and data.dam"),
])  # fmt: skip
def test_a_training_that_fails_says_why_once(found, name, teller, said):
    ends = found.ends(name)
    assert [end["status"] for end in ends] == [1, 1]
    assert [end["err"].count("error: ") for end in ends] == [1 - teller, teller]
    assert said in ends[teller]["err"]
    assert ends[1]["err"].count("\n") == teller
    assert not any(end["out"] or "Traceback" in end["err"] for end in ends)


def test_a_training_that_fails_before_it_begins_leaves_nothing(found):
    assert not (found.folder / "batch").exists()
    assert not (found.folder / "data").exists()
    assert [path.name for path in (found.folder / "foreign").iterdir()] == ["mine.txt"]


def test_images_that_fail_in_one_process_end_all_after_the_same_step(found):
    """A checkpoint is written first, and resuming is exact."""
    first, second = found.ends("shard")
    assert (first["status"], second["status"]) == (1, 1)
    assert f"the training is kept as it was after step 3 of {CLI_STEPS}" in first["err"]
    assert second["err"].count("error: an image is broken") == 1
    assert "going on from step 3 of" in found.ends("mended")[0]["err"]
    one, whole = (load_file(found.folder / n / "supernet.safetensors") for n in ("shard", "whole"))
    assert all(torch.equal(one[key], whole[key]) for key in whole)


def test_what_one_process_cannot_read_is_told_by_the_first(found):
    first, second = found.ends("skip")
    assert (first["status"], second["status"], second["err"]) == (0, 0, "")
    assert first["err"].count("a training image cannot be read; another takes its place") == 1
    assert "kept as it was after step 2 of" in found.ends("stop")[0]["err"]
    log = (found.folder / "skip" / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in log if '"damaged"' in row] == [2]


def test_sigterm_to_one_stops_both_after_the_same_step_and_resuming_is_exact(found):
    first, second = found.ends("stopped")
    assert (first["status"], second["status"]) == (130, 130)
    assert first["err"].count("interrupted. Go on with: ") == 1
    assert second["err"] == ""
    resumed = found.ends("resumed")
    assert "going on from step 3 of" in resumed[0]["err"]
    assert [end["status"] for end in resumed] == [0, 0]
    one, whole = (
        load_file(found.folder / n / "supernet.safetensors") for n in ("stopped", "whole")
    )
    assert one.keys() == whole.keys()
    assert all(torch.equal(one[key], whole[key]) for key in whole)


def test_only_the_first_process_speaks(found):
    first, second = found.ends("whole")
    assert f"training: {CLI_STEPS}/{CLI_STEPS}" in first["err"]
    assert first["out"].startswith("trained: ")
    assert (second["status"], second["out"], second["err"]) == (0, "", "")
    assert "nothing to do" in found.ends("finished")[0]["err"]
    assert found.ends("finished")[1] == {"status": 0, "out": "", "err": ""}


def test_a_process_alone_needs_no_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined("cpu") as ranks:
        assert ranks == ALONE == Ranks(0, 1)
        assert not torch.distributed.is_initialized()


def test_processes_that_cannot_meet_are_told_how_to_start(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="torchrun"), joined("cpu"):
        pass


# --- torchrun -----------------------------------------------------------------------------------


def torchrun(photos: Path, out: Path, *words: str, restarts: int = 0) -> subprocess.Popen[str]:
    """The first example of the documentation, with other folders and a small recipe."""
    page = (TESTS.parent / "docs" / "distributed.md").read_text()
    line = page.partition("```sh\n")[2].partition("\n")[0]
    line = line.replace("--data photos", f"--data {photos}").replace("runs/photos", str(out))
    launcher, *rest = shlex.split(line)
    assert (launcher, rest[0]) == ("torchrun", "--nproc-per-node")
    settings = {"threads": 1, "batch_size": BATCH, "augment.strong": "none", "validations": 0}
    changes = [f"--set=train.{key}={value}" for key, value in settings.items()]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*start, f"--max-restarts={restarts}", *rest, "--space=tiny:size=8", *changes, *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


def test_torchrun_trains(tmp_path, photos):
    words = ("--set=train.steps=4", "--set=train.sync_norm=true")
    process = torchrun(photos, tmp_path / "run", *words)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert stdout.count("trained: ") == 1
    assert stderr.count("training: 4/4") == 1
    assert (tmp_path / "run" / "supernet.safetensors").is_file()
    assert (tmp_path / "run" / JOB).is_file()


@pytest.mark.slow
def test_sigterm_to_torchrun_ends_processes_and_workers(tmp_path, photos):
    out = tmp_path / "run"
    process = torchrun(photos, out, "--set=train.steps=100000", "--set=train.workers=1")
    wait_for(out / "log.jsonl")
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert stderr.count("interrupted. Go on with: ") == 1, stderr
    assert "error: " not in stderr
    assert (out / "supernet.safetensors").is_file()


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.slow
def test_torchrun_goes_on_after_a_kill(tmp_path, photos):
    words = ("--set=train.steps=150", "--set=train.checkpoint_seconds=0.2")
    whole = torchrun(photos, tmp_path / "whole", *words)
    whole.communicate(timeout=600)
    assert whole.returncode == 0
    out = tmp_path / "killed"
    process = torchrun(photos, out, *words, restarts=1)
    wait_for(out / "supernet.safetensors")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert stderr.count("going on from step ") == 1
    one, other = (
        load_file(folder / "supernet.safetensors") for folder in (out, tmp_path / "whole")
    )
    assert all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.slow
def test_torchrun_restarts_do_not_go_on_with_what_another_job_began(tmp_path, photos):
    out = tmp_path / "run"
    torchrun(photos, out, "--set=train.steps=2").communicate(timeout=240)
    kept = shutil.copytree(out, tmp_path / "kept")
    process = torchrun(photos, out, "--set=train.steps=4", restarts=1)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode != 0
    assert stderr.count("holds a run already") == 2  # of each start one
    assert (out / "run.yaml").read_text() == (kept / "run.yaml").read_text()
