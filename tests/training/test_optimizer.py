"""The paper's update against a plain loop of its formula, and the groups the recipes ask for."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import pytest
import torch
from host_reads import NoHostReads
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, ReduceLROnPlateau

from alexnet2012 import AlexNet, paper_recipe, source_recipe
from alexnet2012.network.build import InBfloat16
from alexnet2012.training import PaperSGD
from alexnet2012.training.optimizer import (
    OPTIMIZERS,
    fused_update,
    in_bfloat16,
    make_optimizer,
    own_state,
    parameter_groups,
    suits,
)

STEPS, DROP = 12, 5  # the rate is divided by 10 from step DROP


def gradients(steps: int = STEPS, count: int = 4) -> Iterator[list[float]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield torch.randn(count, generator=generator, dtype=torch.float64).tolist()


def rate(step: int) -> float:
    return 0.01 if step < DROP else 0.001


def weight(value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-value, value, 4, dtype=torch.float64))


def formula(w: list[float], momentum: float, decay: float) -> list[float]:
    """P §5, a number at a time."""
    v = [0.0] * len(w)
    for step, gradient in enumerate(gradients()):
        for i, g in enumerate(gradient):
            v[i] = momentum * v[i] - decay * rate(step) * w[i] - rate(step) * g
            w[i] = w[i] + v[i]
    return w


def train(optimizer: torch.optim.Optimizer, w: nn.Parameter, steps: range = range(STEPS)) -> None:
    for step, gradient in enumerate(gradients()):
        if step in steps:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            w.grad = torch.tensor(gradient, dtype=torch.float64)
            optimizer.step()


LAST, FIRST = torch.channels_last, torch.contiguous_format


@pytest.mark.parametrize(("of_weight", "of_gradient"), [(FIRST, FIRST), (LAST, LAST), (LAST, FIRST)])
@pytest.mark.parametrize("built", [True, False])
def test_float32_tensors_of_every_format_are_updated_alike(
    of_weight: torch.memory_format, of_gradient: torch.memory_format, built: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled or not: beside the same steps in float64."""
    if not built:
        monkeypatch.setattr("alexnet2012.training.optimizer.fused_update", lambda device_type: None)
    w = nn.Parameter(torch.randn(6, 5, 3, 3).contiguous(memory_format=of_weight))
    exact = nn.Parameter(w.detach().double())
    optimizers = [PaperSGD([one], 0.01) for one in (w, exact)]
    for _ in range(5):
        gradient = torch.randn(6, 5, 3, 3)
        w.grad, exact.grad = gradient.contiguous(memory_format=of_gradient), gradient.double()
        for optimizer in optimizers:
            optimizer.step()
    assert suits(w, optimizers[0].velocity(w)) == (of_weight == of_gradient)
    torch.testing.assert_close(w.data, exact.data.float())


def test_a_weight_updated_in_cpp_is_known_to_have_changed() -> None:
    """Autograd refuses to go back through what an update has overwritten."""
    w = nn.Parameter(torch.ones(3))
    w.grad, squares = torch.ones(3), w.square().sum()
    PaperSGD([w], 0.01).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squares.backward()


@pytest.mark.parametrize("built", [True, False])
def test_gradients_in_bfloat16_count_as_the_same_in_float32(built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not built:
        monkeypatch.setattr("alexnet2012.training.optimizer.fused_update", lambda device_type: None)
    wide, narrow = (nn.Parameter(torch.linspace(-1, 1, 99)) for _ in range(2))
    narrow.grad_dtype = torch.bfloat16
    rules = [PaperSGD([weight], 0.01) for weight in (wide, narrow)]
    for _ in range(3):
        narrow.grad = torch.randn(99).bfloat16()
        wide.grad = narrow.grad.float()
        for rule in rules:
            rule.step()
    assert torch.equal(wide, narrow)


class TestInBfloat16:
    """Copies in bfloat16 are those of the float32 weights, whoever changes these."""

    def setup_method(self) -> None:
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2)).to(memory_format=LAST)
        self.computing = InBfloat16(self.net)
        for weight in self.computing.copies:
            weight.grad_dtype = torch.bfloat16

    def backward(self) -> None:
        self.computing(torch.randn(2, 3, 5, 5)).float().square().sum().backward()

    def assert_copied(self) -> None:
        """What the next forward pass computes with."""
        assert all(torch.equal(copy.of(weight), weight.bfloat16()) for weight, copy in self.computing.copies.items())

    def paper_step(self, found: float) -> None:
        rule = PaperSGD(self.net.parameters(), 0.1)
        rule.copies, rule.found_inf = self.computing.copies, torch.tensor(found)
        rule.step()

    def test_gradients_are_in_bfloat16_and_what_is_saved_is_not(self) -> None:
        self.backward()
        assert {weight.grad.dtype for weight in self.net.parameters()} == {torch.bfloat16}
        assert {value.dtype for value in self.computing.state_dict().values()} == {torch.float32}
        assert len(self.computing.state_dict()) == 4

    def test_the_papers_update_writes_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not fused_update("cpu"):
            pytest.skip("no C++ compiler")
        for found in (0.0, 0.0, 1.0):
            self.backward()
            self.paper_step(found)
            monkeypatch.setattr(Tensor, "copy_", lambda *_: pytest.fail("a pass over memory for nothing"))
            self.assert_copied()
            monkeypatch.undo()

    def test_a_step_left_out_does_not_pass_an_old_copy_for_a_new_one(self) -> None:
        self.backward()
        with torch.no_grad():
            self.net[0].weight.mul_(2)
        self.paper_step(1.0)
        self.assert_copied()

    def test_without_a_kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("alexnet2012.training.optimizer.fused_update", lambda device_type: None)
        self.backward()
        self.paper_step(0.0)
        self.assert_copied()

    def test_another_optimizer_and_load_state_dict(self) -> None:
        for weight in self.net.parameters():
            weight.grad_dtype = torch.float32
        self.backward()
        torch.optim.Adam(self.net.parameters(), 0.1).step()
        self.assert_copied()
        for _ in range(2):
            rule = OPTIMIZERS["sgd"](self.net.parameters(), 0.1)
            computing = in_bfloat16(self.net, rule)
            computing(torch.randn(2, 3, 5, 5)).float().square().sum().backward()
            rule.step()
            assert all(torch.equal(copy.of(weight), weight.bfloat16()) for weight, copy in computing.copies.items())
        self.net.load_state_dict({name: value + 1 for name, value in self.net.state_dict().items()})
        self.assert_copied()


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0005), (0.9, 0.0), (0.0, 0.1), (0.5, 0.3)])
def test_the_update_is_the_papers_also_when_the_rate_drops(momentum: float, decay: float) -> None:
    w = weight()
    expected = formula(w.tolist(), momentum, decay)
    train(PaperSGD([w], 0.01, momentum, decay), w)
    torch.testing.assert_close(w.data, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-15)


def test_torchs_sgd_agrees_until_the_rate_drops_and_not_after() -> None:
    for steps, agree in ((range(DROP), True), (range(STEPS), False)):
        ours, theirs = weight(), weight()
        train(PaperSGD([ours], 0.01), ours, steps)
        train(torch.optim.SGD([theirs], 0.01, momentum=0.9, weight_decay=0.0005), theirs, steps)
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=0) is agree


def test_groups_have_rates_decays_and_momenta_of_their_own() -> None:
    settings = [{"lr": 0.1, "weight_decay": 0.2}, {"lr": 0.3, "momentum": 0.5}, {}]
    weights = [weight(n) for n in (1, 2, 3)]
    together = PaperSGD([{"params": [w], **s} for w, s in zip(weights, settings, strict=True)], 0.01)
    apart = [weight(n) for n in (1, 2, 3)]
    alone = [PaperSGD([w], **{"lr": 0.01, **s}) for w, s in zip(apart, settings, strict=True)]
    for gradient in gradients(3):
        for w in (*weights, *apart):
            w.grad = torch.tensor(gradient, dtype=torch.float64)
        together.step()
        for optimizer in alone:
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(weights, apart, strict=True))


def test_a_learning_rate_of_zero_freezes_weight_and_velocity() -> None:
    w = weight()
    optimizer = PaperSGD([w], 0.01)
    train(optimizer, w)
    before = w.detach().clone(), optimizer.velocity(w).clone()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert torch.equal(w, before[0])
    assert torch.equal(optimizer.velocity(w), before[1])
    assert before[1].abs().min() > 0


def test_a_weight_without_a_gradient_stays() -> None:
    used, unused = weight(), weight()
    optimizer = PaperSGD([used, unused], 0.01)
    train(optimizer, used)
    assert torch.equal(unused, weight())
    assert not torch.equal(used, weight())


def test_the_state_goes_through_a_file_and_on_to_the_same_bits() -> None:
    whole, first, second = weight(), weight(), weight()
    train(PaperSGD([whole], 0.01), whole)

    stopped = PaperSGD([first], 0.01)
    train(stopped, first, range(7))
    file = io.BytesIO()
    torch.save({"w": first.data, "optimizer": stopped.state_dict()}, file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    with torch.no_grad():
        second.copy_(saved["w"])
    going_on = PaperSGD([second], 0.5)
    going_on.load_state_dict(saved["optimizer"])
    assert going_on.param_groups[0]["lr"] == rate(6)
    train(going_on, second, range(7, STEPS))
    assert torch.equal(second, whole)


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda optimizer: MultiStepLR(optimizer, [DROP]),
        lambda optimizer: CosineAnnealingLR(optimizer, STEPS),
        lambda optimizer: ReduceLROnPlateau(optimizer, patience=1),
    ],
)
def test_torchs_schedulers_set_the_rate(scheduler) -> None:
    w = weight()
    optimizer = PaperSGD([w], 0.01)
    schedule = scheduler(optimizer)
    moved = []
    for _ in range(STEPS):
        before = w.detach().clone()
        optimizer.velocity(w).zero_()  # what is left is the rate times the gradient, and the decay
        w.grad = torch.ones_like(w)
        optimizer.step()
        torch.testing.assert_close(w.detach(), before - optimizer.param_groups[0]["lr"] * (1 + 0.0005 * before))
        moved.append(optimizer.param_groups[0]["lr"])
        schedule.step(*[1.0] * isinstance(schedule, ReduceLROnPlateau))
    assert moved[0] == 0.01
    assert moved[-1] < 0.0011


def test_a_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    w = weight()
    optimizer = PaperSGD([w], 0.01)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    expected = w.square().sum().item()
    assert optimizer.step(closure).item() == expected
    assert w.square().sum() < expected


@pytest.mark.parametrize("setting", ["lr", "momentum", "weight_decay"])
def test_negative_settings_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=setting):
        PaperSGD([weight()], **{"lr": 0.01, setting: -1.0})


def test_the_velocity_lies_in_memory_as_its_weight() -> None:
    w = nn.Parameter(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last))
    assert PaperSGD([w], 0.01).velocity(w).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("recipe", "bias_rate"), [(paper_recipe, 0.01), (source_recipe, 0.02)])
def test_the_groups_of_a_recipe(recipe, bias_rate: float) -> None:
    net = AlexNet(recipe(width=1 / 16), classes=5)
    groups = {group["name"]: group for group in parameter_groups(net, net.recipe)}
    assert groups.keys() == {"conv1 weights", "conv1 biases", "weights", "biases"}
    names = {parameter: name for name, parameter in net.named_parameters()}
    assert sorted(names[p] for group in groups.values() for p in group["params"]) == sorted(names.values())
    for label, group in groups.items():
        bias = label.endswith("biases")
        assert {names[p].endswith(".bias") for p in group["params"]} == {bias}
        assert {".conv1." in names[p] for p in group["params"]} == {label.startswith("conv1")}
        assert (group["lr"], group["weight_decay"]) == ((bias_rate, 0.0) if bias else (0.01, 0.0005))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_torch_rule_is_torchs_and_its_velocity_is_kept(momentum: float) -> None:
    recipe = paper_recipe(optimizer="sgd", momentum=momentum, weight_decay=0.0, lr=0.1, bias_lr=0.1)
    ours, theirs, resumed = (torch.nn.Linear(3, 2) for _ in range(3))
    theirs.load_state_dict(ours.state_dict())
    rules = [make_optimizer(ours, recipe), torch.optim.SGD(theirs.parameters(), 0.1, momentum)]
    for _ in range(3):
        one_step((ours, theirs), rules)
    resumed.load_state_dict(ours.state_dict())
    rules.append(make_optimizer(resumed, recipe))
    rules[2].load_state_dict(copy.deepcopy(rules[0].state_dict()))
    one_step((ours, theirs, resumed), rules)
    torch.testing.assert_close(ours.weight, theirs.weight)  # theirs rounds once more
    assert torch.equal(ours.weight, resumed.weight)


@pytest.mark.parametrize("kind", ["paper, compiled", "paper, eager", "sgd"])
def test_found_inf_lets_a_step_change_nothing_and_the_host_does_not_ask(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step behind it is as if there had been none: weights and velocities to the bit."""
    if kind == "paper, eager":
        monkeypatch.setattr("alexnet2012.training.optimizer.fused_update", lambda device_type: None)
    nets = [torch.nn.Conv2d(3, 4, 5).to(memory_format=torch.channels_last) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    rules = [make_optimizer(net, paper_recipe(optimizer=kind.partition(",")[0])) for net in nets]
    gradients = [[torch.randn_like(weight) for weight in nets[0].parameters()] for _ in range(3)]
    spoilt = [torch.full_like(weight, torch.nan) for weight in nets[0].parameters()]
    for found, given in ((None, gradients[0]), (0.0, gradients[1]), (1.0, spoilt), (0.0, gradients[2])):
        for net, rule in zip(nets, rules, strict=True):
            rule.found_inf = found if found is None else torch.tensor(found)
            for weight, gradient in zip(net.parameters(), given, strict=True):
                weight.grad = gradient.clone()
            if net is nets[0] or not found:
                with NoHostReads():
                    rule.step()
    for weight, expected in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(weight, expected)
        assert own_state(rules[0], weight).keys() == own_state(rules[1], expected).keys() != set()
        assert all(map(torch.equal, own_state(rules[0], weight).values(), own_state(rules[1], expected).values()))
        assert expected.isfinite().all()


def one_step(nets: tuple[torch.nn.Module, ...], rules: list) -> None:
    for net, rule in zip(nets, rules, strict=True):
        rule.zero_grad()
        net(torch.ones(4, 3)).square().sum().backward()
        rule.step()
