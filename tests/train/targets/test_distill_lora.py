import pytest
import torch
from distilling import CPU, distilled, some_inputs
from training import Listener

from diffgen.engine.engine import Engine
from diffgen.engine.request import GenerateRequest
from diffgen.train import run
from diffgen.train.targets.distill import distill_target
from diffgen.types import LoraRef


@pytest.fixture(scope="module")
def as_lora(squares, sd1, tmp_path_factory):
    """The tiny SD 1 distilled into adapters, in two sittings, and at once."""
    folder = tmp_path_factory.mktemp("as_lora")
    changes = {
        "distill.as_lora": True,
        "lora.rank": 2,
        "lora.modules": ["all"],
        "optimizer.lr": 1e-2,
        "samples.prompts": ["a red square"],
    }
    recipe = distilled(squares, sd1.folder, **changes)
    run.train(recipe, folder / "whole", resume=False, reporter=Listener())
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, folder / "died", resume=False, reporter=Listener(fail_at=4))
    run.train(recipe, folder / "died", resume=True, reporter=Listener())
    return folder


def test_adapters_learn_alone_and_resume_exactly(as_lora):
    whole, died = (
        torch.load(as_lora / name / "checkpoints" / "step-00000004.pt", weights_only=True)
        for name in ("whole", "died")
    )
    assert all(torch.equal(whole["module"][name], died["module"][name]) for name in whole["module"])
    names = list(whole["module"])
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in names} == {"down", "up"}
    learned = whole["ema"]["average"]
    assert 2 * len(learned) == len(names)  # the target network's adapters follow
    ups = [whole["module"][name] for name in names if name.endswith("up.weight")]
    assert all(up.abs().max() > 0 for up in ups)


def test_the_adapters_draw_with_their_base(as_lora, sd1):
    """The file merged into the base is the student that was averaged in the run."""
    file = as_lora / "whole" / "model" / "lora.safetensors"
    plain = Engine.load(sd1.folder, device="cpu", dtype="fp32")
    adapted = Engine.load(sd1.folder, device="cpu", dtype="fp32", loras=[LoraRef(file)])
    asked = GenerateRequest(prompts=["a red square"], seed=3, sampler="lcm")
    before, after = (next(iter(engine.generate(asked))).image for engine in (plain, adapted))
    assert before.tobytes() != after.tobytes()
    assert (as_lora / "whole" / "samples" / "step-00000004.png").is_file()


def test_adapters_and_their_target_network_begin_as_the_teacher(squares, sd2):
    changes = {"distill.as_lora": True, "lora.rank": 2, "run.gradient_checkpointing": True}
    target = distill_target(distilled(squares, sd2.folder, **changes), CPU)
    inputs = target.inputs(*some_inputs(target, squares))
    teacher = target.inputs.teacher(inputs.far.x, inputs.far.t, inputs.cond)
    followers = target.module.networks.target.parameters()
    assert not any(parameter.requires_grad for parameter in followers)
    for unet in (target.module.networks.unet, target.module.networks.target):
        torch.testing.assert_close(unet(inputs.far.x, inputs.far.t, inputs.cond), teacher)
    state = target.module.networks.unet.state_dict()
    averaged = target.module.networks.target.state_dict()
    assert all(torch.equal(state[name], averaged[name]) for name in state)
