import pytest
import torch
from torch import nn
from training import Listener, make_recipe

from diffgen.errors import ConfigError
from diffgen.train import run
from diffgen.train.muon import ADAM_SIZE, MOMENTUM, Muon, hidden_weights, orthogonal


@pytest.mark.parametrize("shape", [(32, 32), (24, 100), (100, 24)])
def test_orthogonal_keeps_directions_and_evens_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    result = (
        u.T @ orthogonal(matrix[None])[0].float() @ vh.T
    )  # diagonal, were the directions the same
    sizes = result.diagonal()
    # The smallest of a square random matrix are too small for five iterations.
    large = s > 0.05 * s.max()
    assert sizes[large].min() > 0.6
    assert sizes.max() < 1.3
    assert (result - result.diagonal().diag()).norm() < 0.05 * result.norm()


def test_each_matrix_is_turned_by_itself():
    both = torch.randn(2, 24, 48, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([orthogonal(matrix[None]) for matrix in both])
    assert torch.allclose(orthogonal(both).float(), alone.float(), atol=0.01)


def test_only_what_lies_between_hidden_layers_is_turned():
    module = nn.ModuleDict(
        {
            "conv_in": nn.Conv2d(3, 32, 3),
            "conv": nn.Conv2d(32, 16, 3),
            "linear": nn.Linear(16, 64),
            "embedding": nn.Embedding(100, 64),
            "norm": nn.LayerNorm(64),
            "conv_out": nn.Conv2d(32, 4, 3),
        }
    )
    chosen = {id(p) for p in hidden_weights(module)}
    names = {n for n, p in module.named_parameters() if id(p) in chosen}
    assert names == {"conv.weight", "linear.weight"}


def test_the_rest_learns_as_by_adamw():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(20, 20), nn.Linear(20, 20)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.01, "weight_decay": 0.1}
    muon = Muon(ours.parameters(), hidden_weights(ours), **options)
    adam = torch.optim.AdamW(theirs.parameters(), **options)
    for step in range(3):
        for module, optimizer in ((ours, muon), (theirs, adam)):
            for k, parameter in enumerate(module.parameters()):
                generator = torch.Generator().manual_seed(step + 10 * k)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(ours.bias, theirs.bias)
    assert not torch.allclose(ours.weight, theirs.weight)


def test_a_first_update_by_hand():
    weight = nn.Parameter(torch.zeros(16, 32))
    gradient = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    weight.grad = gradient.clone()
    Muon([weight], [weight], lr=0.5, weight_decay=0.0).step()
    # Nesterov: (1 - m) g + m ((1 - m) g), of which only the direction counts.
    turned = orthogonal((1 - MOMENTUM) * (1 + MOMENTUM) * gradient[None])[0]
    assert torch.allclose(weight.detach(), -0.5 * ADAM_SIZE * 32**0.5 * turned.float(), atol=2e-2)
    # The size of AdamW's updates, whatever the shape: about 0.2 on the root mean square.
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.5 * ADAM_SIZE, rel=0.25)


def test_a_run_with_muon_goes_on_bit_for_bit(squares, tmp_path):
    recipe = make_recipe(squares, {"optimizer.kind": "muon", "optimizer.lr": 1e-2})
    run.train(recipe, tmp_path / "whole", resume=False, reporter=Listener())
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path / "cut", resume=False, reporter=Listener(fail_at=5))
    run.train(recipe, tmp_path / "cut", resume=True, reporter=Listener())
    saved = [
        torch.load(tmp_path / name / "checkpoints" / "step-00000008.pt", weights_only=True)
        for name in ("whole", "cut")
    ]
    momenta = [
        [e["momentum"] for e in s["optimizer"]["state"].values() if "momentum" in e] for s in saved
    ]
    assert momenta[0]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    first, second = (s["module"] for s in saved)
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_shares_of_matrices_are_refused(squares):
    with pytest.raises(ConfigError, match="Muon needs them whole"):
        make_recipe(squares, {"optimizer.kind": "muon", "run.parallel": "fsdp"})
