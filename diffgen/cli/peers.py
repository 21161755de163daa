"""What other programs call our options: diffusers' scripts, CompVis', A1111, sd-scripts, sd.cpp.

Keys are in lower case, with hyphens, and without the first ones.
"""

from __future__ import annotations

_NAMES = {
    "--guidance": ("cfg-scale", "cfg", "scale", "guidance-scale", "cfgscale"),
    "--negative": ("negative-prompt", "neg", "neg-prompt", "uc", "unconditional", "np"),
    "--steps": (
        *("num-inference-steps", "inference-steps", "ddim-steps", "sample-steps"),
        *("sampling-steps", "num-steps", "n-steps", "step"),
    ),
    "--sampler": (
        *("sampling-method", "sampler-name", "sample-method", "sampler-index", "scheduler-type"),
        *("solver", "method"),
    ),
    "--sampler, or --schedule for the spacing of steps": ("scheduler", "schedulers"),
    "--width": ("w", "image-width"),
    "--height": ("h", "image-height"),
    "--width and --height": (
        *("size", "resolution", "res", "image-size", "dimensions", "image-dimensions"),
    ),
    "--count": (
        *("n-iter", "n-samples", "num-images", "num-images-per-prompt", "batch-count", "n"),
        *("num-samples", "images", "number", "repeat", "images-per-prompt"),
    ),
    "--batch-size": ("b", "bs", "batch"),
    "--output": (
        *("out", "outdir", "output-dir", "output-path", "outpath", "output-file", "save"),
        *("outfile", "output-folder", "dest", "output-name"),
    ),
    "--model": (
        *("ckpt", "checkpoint", "model-path", "model-name", "model-id", "diffusion-model"),
        *("pretrained-model-name-or-path", "sd-model", "ckpt-path", "pretrained-model"),
    ),
    "--lora": ("lora-path", "lora-weights", "network-weights", "loras", "lora-file"),
    "--lora FILE:WEIGHT": ("lora-scale", "lora-weight", "network-mul", "lora-strength"),
    "--vae": ("vae-path", "vae-dir", "vae-file", "autoencoder"),
    "--prediction v": ("v-parameterization", "v-pred", "v-prediction"),
    "--prediction": ("prediction-type", "parameterization"),
    "--dtype": ("precision", "torch-dtype", "type", "weight-type"),
    "--dtype fp16": ("fp16", "half", "half-precision"),
    "--dtype bf16": ("bf16", "bfloat16"),
    "--dtype fp32": ("fp32", "full", "no-half", "full-precision"),
    "--device cuda": ("cuda", "gpu"),
    "--device cpu": ("cpu", "use-cpu"),
    "--device mps": ("mps",),
    "--prompts": ("from-file", "prompts-file", "prompt-file", "file", "prompts-from-file"),
    "--guidance-rescale": ("cfg-rescale", "rescale", "guidance-scale-rescale"),
    "--guidance-interval": ("cfg-interval", "guidance-start", "guidance-end"),
    "--s-churn": ("churn",),
    "--eta": ("ddim-eta", "eta-ddim"),
    "--threads": ("t", "num-threads", "n-threads", "cpu-threads"),
    "the prompt itself, without an option": ("prompt", "p", "text", "caption", "positive-prompt"),
}
_TRAINING = {
    "--data": (
        *("train-data-dir", "instance-data-dir", "dataset", "data-dir", "train-dir", "images"),
        *("image-dir", "data-path"),
    ),
    "--model": (
        *(
            "pretrained-model-name-or-path",
            "base-model",
            "base",
            "ckpt",
            "checkpoint",
            "model-path",
        ),
    ),
    "--output": ("output-dir", "out", "outdir", "output-name", "logdir", "output-path"),
    "--resume": ("resume-from-checkpoint", "continue", "resume-from"),
    "--set run.steps=N": ("max-train-steps", "steps", "num-steps", "max-steps", "iterations"),
    "--set run.batch_size=N": ("train-batch-size", "batch-size", "b", "batch"),
    "--set optimizer.lr=X": ("learning-rate", "lr", "unet-lr"),
    "--set lora.rank=N": ("rank", "network-dim", "lora-rank", "r"),
    "--set run.seed=N": ("seed",),
    "--set data.size=N": ("resolution", "size", "image-size"),
    "--set run.precision=bf16": ("mixed-precision", "precision", "dtype", "fp16", "bf16"),
    "--set run.device=NAME": ("device", "cuda", "gpu", "cpu"),
    "--set run.gradient_checkpointing=true": ("gradient-checkpointing",),
    "the recipe's file, without an option": ("config", "recipe", "config-file", "c", "f"),
}
OPTIONS = {name: ours for ours, names in _NAMES.items() for name in names}
TRAINING = {name: ours for ours, names in _TRAINING.items() for name in names}
