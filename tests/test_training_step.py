"""One step: gradients as of separate networks, lessons, losses, sampling rules."""

import math
from collections import Counter
from random import Random

import pytest
import torch
from conftest import small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from elastic_nas.config import TrainConfig
from elastic_nas.genotype import sample
from elastic_nas.network import Network
from elastic_nas.nn.child import Child, randomise
from elastic_nas.nn.supernet import Supernet, resize
from elastic_nas.training.sampling import Lesson, Sampler
from elastic_nas.training.step import Regularisation, Teaching, normalise, sandwich_step

NETWORK = Network("tiny:size=8", 10)


def lessons(network: Network, seed: int = 0, step: int = 0, **config) -> list[Lesson]:
    return Sampler(network, TrainConfig(**config), seed).lessons(step)


def scatter(supernet: Supernet, child: Child, totals: dict[str, torch.Tensor]) -> None:
    """Add a plain child's gradients to where the supernet keeps those weights."""
    shared = dict(supernet.named_parameters())
    for name, parameter in child.named_parameters():
        _, index, layer, kind = name.split(".")
        unit = child.names[int(index)].replace(".", "_")
        prefix = f"blocks.{unit}.{layer}.{kind}_"
        (full,) = [key for key in shared if key.startswith(prefix)]
        region = [slice(0, size) for size in parameter.shape]
        if parameter.dim() == 4:  # a smaller kernel is the centre of the larger one
            rim = (shared[full].shape[-1] - parameter.shape[-1]) // 2
            region[2:] = [slice(rim, rim + parameter.shape[-1])] * 2
        total = totals.setdefault(full, torch.zeros_like(shared[full]))
        total[tuple(region)] += parameter.grad


def naive_gradients(supernet, network, x, labels, children, smoothing):
    """The step as the papers write it: separate networks that start from the shared weights."""
    totals: dict[str, torch.Tensor] = {}
    teacher = None
    for lesson in children:
        child = supernet.slice(lesson.genotype).train()
        logits = child(resize(x, child.resolution))
        if teacher is None:
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            teacher = logits.log_softmax(1).exp().detach()
        else:
            loss = F.cross_entropy(logits, teacher)
        loss.backward()
        scatter(supernet, child, totals)
    return totals


@pytest.mark.parametrize("name", ["tiny:size=8", "compact:size=64", "bignas", "attentive_nas"])
def test_gradients_of_a_step_equal_separate_networks(name):
    network = small_network(name)
    supernet = network.supernet()
    randomise(supernet, 1)
    size = network.dims[0].choices[-1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, size, size, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (8,), generator=generator)
    children = lessons(network, seed=3, step=5)
    expected = naive_gradients(supernet, network, x, labels, children, 0.1)
    sandwich_step(supernet, Teaching(network.task, Regularisation(0.1)), x, labels, children)
    for key, parameter in supernet.named_parameters():
        assert parameter.grad is not None, key
        if key == "blocks.classifier.linear.weight_OC":  # a narrow view takes another kernel
            torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(parameter.grad, expected[key]), key


def test_gradients_add_up_and_nothing_is_zeroed():
    supernet, x = NETWORK.supernet(), torch.randn(8, 3, 8, 8)
    labels = torch.arange(8)
    children = lessons(NETWORK, random_children=0)
    for _ in range(2):
        sandwich_step(supernet, Teaching(NETWORK.task), x, labels, children)
    twice = [p.grad.clone() for p in supernet.parameters()]
    supernet.zero_grad()
    sandwich_step(supernet, Teaching(NETWORK.task), x, labels, children)
    once = [p.grad for p in supernet.parameters()]
    for a, b in zip(twice, once, strict=True):
        torch.testing.assert_close(a, 2 * b, rtol=1e-4, atol=1e-6)


class Spy(nn.Module):
    """Notes how it is called; all logits are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def forward(self, x, genotype, **options):
        self.calls.append((genotype, options["dropout"], options["drop_connect"]))
        return torch.zeros(len(x), 10, requires_grad=True)


BATCH = (torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long))


def test_only_the_largest_child_is_regularised():
    spy = Spy()
    teaching = Teaching(NETWORK.task, Regularisation(0.1, dropout=0.2, drop_connect=0.3))
    losses = sandwich_step(spy, teaching, *BATCH, lessons(NETWORK))
    assert spy.calls[0] == (NETWORK.largest, 0.2, 0.3)
    assert [call[1:] for call in spy.calls[1:]] == [(0, 0)] * 3
    assert spy.calls[-1][0] == NETWORK.smallest
    assert losses.tolist() == pytest.approx([math.log(10)] * 4)


def test_all_children_are_regularised_on_request():
    spy = Spy()
    teaching = Teaching(NETWORK.task, Regularisation(dropout=0.2, drop_connect=0.3))
    sandwich_step(spy, teaching, *BATCH, lessons(NETWORK, regularise="all"))
    assert [call[1:] for call in spy.calls] == [(0.2, 0.3)] * 4


def test_parts_give_the_gradients_of_their_mean():
    supernet = NETWORK.supernet()
    randomise(supernet, 1)
    x, labels = torch.randn(12, 3, 8, 8), torch.arange(12) % 10
    children, teaching = lessons(NETWORK), Teaching(NETWORK.task)
    losses = sandwich_step(supernet, Teaching(NETWORK.task, parts=3), x, labels, children)
    together = [p.grad.clone() for p in supernet.parameters()]
    supernet.zero_grad()
    halves = [
        sandwich_step(supernet, teaching, a, b, children)
        for a, b in zip(x.chunk(3), labels.chunk(3), strict=True)
    ]
    torch.testing.assert_close(losses, sum(halves) / 3)
    for got, parameter in zip(together, supernet.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad / 3, rtol=1e-4, atol=1e-6)


def test_dropout_and_drop_connect_reach_their_layers():
    supernet = NETWORK.supernet()
    randomise(supernet, 0)
    x = torch.randn(4, 3, 8, 8)
    plain = supernet(x, NETWORK.largest)
    for options in ({"dropout": 0.5}, {"drop_connect": 0.5}):
        assert not torch.allclose(supernet(x, NETWORK.largest, **options), plain)


def rates_in_forward(name: str, **options) -> dict[str, float]:
    """The rate that each dropped block of the largest child is called with."""
    network = small_network(name)
    supernet, seen = network.supernet(), {}

    def note(block):
        def hook(module, args, options):
            if rate := options.get("drop_connect", 0):
                seen[block] = rate

        return hook

    for block, module in supernet.blocks.items():
        module.register_forward_pre_hook(note(block), with_kwargs=True)
    size = network.dims[0].choices[-1]
    supernet(torch.randn(2, 3, size, size), network.largest, drop_connect=0.2, **options)
    return seen


DROPPED = {
    "tiny:size=8": "1.2 2.2 2.3 3.2 3.3",
    "bignas": "1.2 2.2 2.3 3.2 3.3 4.2 4.3 4.4 5.2 5.3 5.4 5.5 5.6 6.2 6.3 6.4 6.5 6.6 7.2",
    "attentive_nas": "1.1 1.2 2.2 2.3 2.4 2.5 3.2 3.3 3.4 3.5 3.6 4.2 4.3 4.4 4.5 4.6 "
    "5.2 5.3 5.4 5.5 5.6 5.7 5.8 6.2 6.3 6.4 6.5 6.6 6.7 6.8 7.2",
}
"""Stage and block of the largest child's blocks whose shortcut is their input itself."""


@pytest.mark.parametrize("name", DROPPED)
def test_drop_connect_grows_linearly_to_its_rate_at_the_last_residual_block(name):
    blocks = [f"stage{text.replace('.', '_block')}" for text in DROPPED[name].split()]
    expected = {block: 0.2 * ((k + 1) / len(blocks)) for k, block in enumerate(blocks)}
    assert rates_in_forward(name) == expected
    assert expected[blocks[-1]] == 0.2


def test_drop_connect_in_the_last_stages_only():
    everywhere = rates_in_forward("attentive_nas")
    last_two = rates_in_forward("attentive_nas", drop_connect_stages=2)
    assert last_two == {n: r for n, r in everywhere.items() if n.startswith(("stage6", "stage7"))}
    assert len(last_two) == 8
    published = [0.2 * index / 37 for index in (*range(28, 35), 36)]
    assert list(last_two.values()) == pytest.approx(published, abs=0.01)


def test_the_last_residual_block_of_every_child_bears_the_rate():
    network = Network("bignas", 10)
    supernet = network.supernet()
    for seed in range(5):
        rates = supernet.drop_rates(sample(network.dims, Random(seed)), 0.3)
        assert [*rates.values()][-1] == 0.3
        assert [*rates.values()] == sorted(rates.values())


# --- which children -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["uniform", "stratified", "fair"])
def test_children_of_a_step_depend_on_seed_and_step_alone(rule):
    Random(1).random()
    first = lessons(NETWORK, 0, 7, sampling=rule, random_children=3)
    assert first == lessons(NETWORK, 0, 7, sampling=rule, random_children=3)
    assert first[0] == Lesson(NETWORK.largest, from_labels=True, regularised=True)
    assert first[-1] == Lesson(NETWORK.smallest)
    assert first != lessons(NETWORK, 0, 8, sampling=rule, random_children=3)
    assert first != lessons(NETWORK, 1, 7, sampling=rule, random_children=3)


def test_without_the_sandwich_random_children_learn_from_labels():
    drawn = lessons(NETWORK, sandwich=False, random_children=1)
    assert [(x.from_labels, x.regularised) for x in drawn] == [(True, False)]
    taught = lessons(NETWORK, distillation="none")
    assert all(lesson.from_labels for lesson in taught)
    sampler = Sampler(NETWORK, TrainConfig(distill_from=0.5), 0)
    for share, from_labels in ((0.49, 4), (0.5, 1)):
        assert sum(x.from_labels for x in sampler.lessons(0, share=share)) == from_labels
    config = TrainConfig(sandwich=False, random_children=3)
    assert Sampler(NETWORK, config, 0).kinds == ("random",) * 3
    assert Sampler(NETWORK, TrainConfig(), 0).kinds == ("largest", "random", "random", "smallest")


def test_fair_sampling_takes_every_choice_equally_often():
    drawn = [
        lesson.genotype
        for step in range(6)
        for lesson in lessons(NETWORK, 3, step, sampling="fair", random_children=2, sandwich=False)
    ]
    for position, dim in enumerate(NETWORK.dims):  # 12 children; choices of 1, 2, 3 divide 12
        counts = Counter(genotype[position] for genotype in drawn)
        assert set(counts.values()) == {12 // len(dim.choices)}


def test_stratified_sampling_covers_the_range_of_macs():
    least, most = NETWORK.macs(NETWORK.smallest), NETWORK.macs(NETWORK.largest)
    shares = [
        [
            (NETWORK.macs(lesson.genotype) - least) / (most - least)
            for lesson in lessons(
                NETWORK, 0, step, sampling="stratified", random_children=4, sandwich=False
            )
        ]
        for step in range(40)
    ]
    means = [sum(column) / len(column) for column in zip(*shares, strict=True)]
    assert means == sorted(means)
    assert means[-1] > 0.4  # uniform draws are nearly all below


def test_best_up_trains_the_candidate_of_lowest_loss():
    asked = []

    def losses(candidates):
        asked.append(candidates)
        return [3.0, 1.0, 2.0]

    sampler = Sampler(NETWORK, TrainConfig(sampling="best_up"), 0)
    drawn = sampler.lessons(0, losses)
    assert [lesson.genotype for lesson in drawn[1:-1]] == [three[1] for three in asked]


# --- losses -------------------------------------------------------------------------------------


def test_losses_by_hand():
    task = NETWORK.task
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    smoothed = 0.95 * math.log(4 / 3) + 0.05 * math.log(4)
    assert task.loss(logits, torch.tensor([1]), 0.1).item() == pytest.approx(smoothed)
    teacher = task.teacher(torch.tensor([[0.0, 0.0]], requires_grad=True))
    assert not teacher.requires_grad
    assert teacher.dtype == torch.float32
    distilled = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    assert task.distillation_loss(logits, teacher).item() == pytest.approx(distilled)
    shares = torch.tensor([[0.25, 0.75]])
    mixed = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert task.loss(logits, shares, 0.0).item() == pytest.approx(mixed)


@given(st.integers(0, 10**6), st.floats(0.1, 60))
@settings(max_examples=50, deadline=None)
def test_alpha_divergence_equals_the_formulas_of_the_paper(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    student = (torch.randn(5, 4, generator=generator) * scale).double().requires_grad_()
    teacher = (torch.randn(5, 4, generator=generator) * scale).double()
    task = NETWORK.task
    loss = task.distillation_loss(student.float(), task.teacher(teacher), "alpha")
    values, surrogates = [], []
    for s, t in zip(student, teacher, strict=True):  # one sample, one class after the other
        log_q, log_p = s.log_softmax(0), t.log_softmax(0)
        forward = sum(p.exp() * (p - q) for p, q in zip(log_p, log_q, strict=True))
        ratios = [min((q - p).exp().item(), 5.0) for p, q in zip(log_p, log_q, strict=True)]
        reverse = sum(q.exp() * (c - 1) / 2 for q, c in zip(log_q, ratios, strict=True))
        pairs = zip(log_q, log_p, ratios, strict=True)
        if reverse > forward:
            surrogates.append(-sum(q.exp().detach() * (0.5 - c) * q for q, _, c in pairs))
        else:
            surrogates.append(-sum(p.exp() * q for q, p, _ in pairs))
        values.append(max(forward.item(), reverse.item()))
    assert loss.item() == pytest.approx(sum(values) / 5, rel=1e-4, abs=1e-5)
    (got,) = torch.autograd.grad(loss, student)
    (expected,) = torch.autograd.grad(sum(surrogates) / 5, student)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_alpha_divergence_survives_logits_far_apart():
    task = NETWORK.task
    student = torch.tensor([[0.0, 500.0]], requires_grad=True)
    teacher = task.teacher(torch.tensor([[500.0, 0.0]]))
    loss = task.distillation_loss(student, teacher, "alpha")
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad.isfinite().all()


def test_normalise_is_what_the_exported_graph_does():
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    got = normalise(x, (0.5, 0.2, 0.0), (0.5, 0.1, 2.0)).flatten().tolist()
    assert got == pytest.approx([-1, 0, 0.5])
