"""Checks of a recipe that concern more than one key."""

from __future__ import annotations

from dataclasses import replace

from diffgen.errors import ConfigError
from diffgen.models.checks import check_networks
from diffgen.train.buckets import bucket_sizes
from diffgen.train.recipe.recipe import DataRecipe, LoraRecipe, ObjectiveRecipe, Recipe

FROM_CAPTIONS = "captions"  # the model.tokenizer that asks for a vocabulary of one's own
SMALLEST_VOCABULARY = 514  # 256 bytes, as many that end a word, start and end
RANK = 16  # of adapters
MODULES = ("attention",)  # that have them
SMALLEST_JUDGED = 24  # pixels that a discriminator of patches needs along a side


def check_recipe(recipe: Recipe, where: str) -> None:
    """Raise ConfigError for keys that do not go together; `where` names the recipe in errors."""
    if recipe.target == "distill":
        _check_distill(recipe, where)
    _check_model(recipe, where)
    model = recipe.model
    texts = (model.text,) if model.text else ()
    check_networks(
        model.unet, model.vae, texts, model.schedule, lambda key: f'{where}: "model.{key}"'
    )
    _check_data(recipe, where)
    _check_optimizer(recipe, where)
    _check_parallel(recipe, where)
    _check_autoencoder(recipe, where)
    _check_vocabulary(recipe, where)


def _check_data(recipe: Recipe, where: str) -> None:
    if not (recipe.data.enlarge or recipe.data.buckets):
        raise ConfigError(
            f"{where}: data.enlarge = false needs data.buckets, where small pictures find their size"
        )


def _check_parallel(recipe: Recipe, where: str) -> None:
    if recipe.run.parallel == "ddp":
        return
    if recipe.target not in ("diffusion", "autoencoder"):
        raise ConfigError(
            f'{where}: run.parallel = "fsdp" is for the diffusion and autoencoder targets; '
            f"the {recipe.target} target needs ddp"
        )
    for name, reason in (
        ("compile", "compiled networks cannot be sharded block by block"),
        ("channels_last", "shards are contiguous memory"),
    ):
        if getattr(recipe.run, name):
            raise ConfigError(
                f'{where}: run.{name} does not go with run.parallel = "fsdp": {reason}; drop one'
            )
    if recipe.optimizer.kind == "muon":
        raise ConfigError(
            f'{where}: run.parallel = "fsdp" deals matrices out in shares, and Muon needs them '
            'whole; use optimizer.kind = "adamw"'
        )


def _check_autoencoder(recipe: Recipe, where: str) -> None:
    if recipe.target != "autoencoder":
        return
    patch = recipe.autoencoder.patch
    smallest = recipe.data.bucket_step if not recipe.data.enlarge else _shortest(recipe.data)
    if patch and patch > smallest:
        raise ConfigError(
            f"{where}: autoencoder.patch {patch} is larger than the pictures, "
            f"whose shortest side is {smallest}; use at most that"
        )
    if recipe.autoencoder.decoder_only and not recipe.model.base:
        raise ConfigError(
            f"{where}: autoencoder.decoder_only needs model.base, whose latents it keeps"
        )
    if recipe.autoencoder.decoder_only and recipe.autoencoder.teacher:
        raise ConfigError(
            f"{where}: autoencoder.teacher is for an encoder that learns, which decoder_only "
            "leaves as it is; drop one of them"
        )
    if recipe.model.vae:
        check_factor(recipe, recipe.model.vae.factor, where)
    if recipe.autoencoder.adversarial:
        _check_adversarial(recipe, patch or smallest, where)


def _check_optimizer(recipe: Recipe, where: str) -> None:
    for name in ("beta1", "beta2"):
        if getattr(recipe.optimizer, name) >= 1:
            raise ConfigError(f"{where}: optimizer.{name} must be below 1")


def remarks(recipe: Recipe) -> list[str]:
    """Warnings about a recipe that is valid but probably not what was meant."""
    warmup, steps = recipe.optimizer.warmup, recipe.run.steps
    if warmup < steps:
        return []
    return [
        f"optimizer.warmup, {warmup} steps, is not over when the run ends, after {steps}: "
        f"the learning rate never reaches {recipe.optimizer.lr:g}"
    ]


def settled_lora(recipe: Recipe, where: str) -> LoraRecipe:
    """`[lora]` with the rank and modules of its adapters, unless a file brings them.

    Raises ConfigError where that is asked for as well, and for a lora recipe without a base.
    """
    lora, model = recipe.lora, recipe.model
    if recipe.target == "lora" and model.base is None:
        raise ConfigError(f"{where}: the lora target needs model.base, the model to adapt")
    if recipe.target == "lora" and model.train_text_encoder:
        raise ConfigError(
            f"{where}: for the lora target it is lora.text_encoder, not model.train_text_encoder"
        )
    given = [name for name in ("rank", "alpha", "modules") if getattr(lora, name) is not None]
    if lora.init and given:
        raise ConfigError(
            f"{where}: lora.init brings its own {given[0]}; drop lora.{given[0]} or lora.init"
        )
    if lora.init:
        return lora
    modules = MODULES if lora.modules is None else lora.modules
    return replace(lora, rank=lora.rank or RANK, modules=modules)


def _check_vocabulary(recipe: Recipe, where: str) -> None:
    model = recipe.model
    if model.tokenizer != FROM_CAPTIONS or recipe.target == "autoencoder":
        return
    if model.base:
        raise ConfigError(f"{where}: model.base brings its own vocabulary; drop model.tokenizer")
    if model.text and model.text.vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"{where}: model.text.vocab_size {model.text.vocab_size} is too small for a vocabulary "
            f"from captions: its bytes and marks alone are {SMALLEST_VOCABULARY}"
        )


def check_factor(recipe: Recipe, factor: int, where: str) -> None:
    """Raise ConfigError unless what an autoencoder learns from divides by its `factor`."""
    for key, side in _sides(recipe):
        if side % factor:
            raise ConfigError(
                f"{where}: {key}, {side}, does not divide by the autoencoder's {factor}"
            )


def _sides(recipe: Recipe) -> list[tuple[str, int]]:
    """The sides of pictures, or pieces of them, by the keys that decide on them."""
    data = recipe.data
    if recipe.autoencoder.patch:
        return [("autoencoder.patch", recipe.autoencoder.patch)]
    if data.buckets:
        return [("data.bucket_step", data.bucket_step)]
    width, height = data.shape
    return [
        ("data.width" if data.width else "data.size", width),
        ("data.height" if data.height else "data.size", height),
    ]


def _shortest(data: DataRecipe) -> int:
    sizes = bucket_sizes(data.shape, data.bucket_step) if data.buckets else (data.shape,)
    return min(min(size) for size in sizes)


def _check_model(recipe: Recipe, where: str) -> None:
    model = recipe.model
    new = [name for name in ("unet", "text", "schedule") if getattr(model, name)]
    chosen = [name for name in ("prediction", "zero_snr") if getattr(model, name) is not None]
    if chosen and (not model.base or recipe.target == "autoencoder"):
        raise ConfigError(
            f"{where}: model.{chosen[0]} is for the U-Net of a model.base; a new one has it in "
            "[model.schedule]"
        )
    if recipe.target == "autoencoder":
        if (model.base is None) == (model.vae is None):
            raise ConfigError(f"{where}: the autoencoder target needs model.base or [model.vae]")
        return
    if model.vae is not None:
        raise ConfigError(
            f"{where}: [model.vae] belongs to the autoencoder target; "
            "model.autoencoder names the folder of a trained one"
        )
    if model.base and new:
        raise ConfigError(f"{where}: model.base brings its own {new[0]}; drop model.{new[0]}")
    if model.base is None and not (model.unet and model.text):
        raise ConfigError(
            f"{where}: give model.base to fine-tune, or [model.unet] and [model.text] for new ones"
        )


def _check_distill(recipe: Recipe, where: str) -> None:
    guidance = recipe.distill.guidance
    if recipe.model.base is None:
        raise ConfigError(f"{where}: the distill target needs model.base, the model to distil")
    if recipe.model.train_text_encoder:
        raise ConfigError(
            f"{where}: distillation trains the U-Net alone; drop model.train_text_encoder"
        )
    if recipe.objective != ObjectiveRecipe():
        raise ConfigError(
            f"{where}: [objective] is the loss of the diffusion target; that of distillation is in "
            "[distill]"
        )
    if isinstance(guidance, tuple) and (len(guidance) != 2 or guidance[0] >= guidance[1]):
        raise ConfigError(
            f'{where}: "distill.guidance" should be a number or [low, high] with low < high, not '
            f"{list(guidance)}"
        )
    if recipe.distill.as_lora and isinstance(guidance, tuple):
        raise ConfigError(
            f"{where}: adapters cannot be told a guidance scale; distill.as_lora needs one number "
            "for distill.guidance"
        )
    if recipe.distill.as_lora and recipe.lora.text_encoder:
        raise ConfigError(f"{where}: distillation trains the U-Net alone; drop lora.text_encoder")


def _check_adversarial(recipe: Recipe, side: int, where: str) -> None:
    weights, run = recipe.autoencoder, recipe.run
    problem = None
    if side < SMALLEST_JUDGED:
        problem = f"needs pictures or pieces of at least {SMALLEST_JUDGED} pixels, not {side}"
    elif weights.adversarial_start >= run.steps:
        problem = f"would start at step {weights.adversarial_start}, after the last, {run.steps}"
    elif not weights.l1 + weights.l2 + weights.edge:
        problem = "is weighed against l1, l2 and edge, which are all 0"
    elif run.precision == "fp16":
        problem = 'compares gradients that fp16 cannot hold; use run.precision = "bf16" or "fp32"'
    elif run.compile:
        problem = "goes back through the decoder twice, which run.compile does not allow"
    elif run.parallel == "fsdp":
        problem = 'reads the gradient of one whole layer; use run.parallel = "ddp"'
    if problem:
        raise ConfigError(f"{where}: autoencoder.adversarial {problem}")
