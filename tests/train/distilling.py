"""Recipes and batches that the tests of distillation share."""

import torch
from training import make_recipe

from diffgen.train.data.dataset import open_data
from diffgen.train.draws import Draws

CPU = torch.device("cpu")
SMALL = {"run.steps": 4, "run.save_dtype": "fp32", "data.size": 32, "run.batch_size": 2}


def distilled(squares, base, **changes):
    table = {"target": "distill", "model": {"base": str(base)}, **SMALL, **changes}
    return make_recipe(squares, table)


def some_inputs(target, squares):
    recipe = make_recipe(squares, SMALL).data
    data = open_data(recipe, tokenizer=target.tokenizers[0], captioned=True)
    batch = next(iter(data.validation(4)))
    return batch, Draws.of((0, 0), batch.indices, CPU)
