"""`diffgen sample-steps`: which sampler, and how many steps."""

from __future__ import annotations

from diffgen.cli import options as opt
from diffgen.cli import sweep_options as sweep
from diffgen.cli.memory import keep_freed_memory
from diffgen.cli.threads import settle_threads


def sample_steps(
    prompts: opt.Prompts = None,
    prompt_file: opt.PromptFile = None,
    strict: opt.Strict = False,
    model: opt.Model = None,
    vae: opt.Vae = None,
    prediction: opt.PredictionType = None,
    zero_snr: opt.ZeroSnr = None,
    clip_skip: opt.ClipSkip = None,
    samplers: sweep.Samplers = None,
    schedules: sweep.Schedules = None,
    steps: sweep.Steps = None,
    nfe: sweep.Calls = None,
    seeds: sweep.Seeds = None,
    negative: opt.Negative = None,
    guidance: opt.Guidance = None,
    width: sweep.Width = None,
    height: sweep.Height = None,
    reference: sweep.ReferenceSteps = None,
    repeats: sweep.Repeats = None,
    clip: sweep.Clip = None,
    target_psnr: sweep.TargetPsnr = None,
    budget_seconds: sweep.BudgetSeconds = None,
    compare_with: sweep.CompareWith = None,
    max_slower: sweep.MaxSlower = "10%",
    max_worse: sweep.MaxWorse = "0.5dB",
    trajectory: sweep.Trajectory = None,
    output: sweep.Output = "report",
    fresh: sweep.Fresh = False,
    device: sweep.Device = None,
    dtype: sweep.Dtype = None,
    threads: opt.Threads = None,
    as_json: sweep.AsJson = False,
    quiet: sweep.Quiet = False,
    verbose: sweep.Verbose = False,
) -> None:
    """Measure samplers and step counts on a model, and say which to use.

    Every picture is compared with the converged picture of its seed. The folder gets report.html,
    plots, results.json and results.csv.
    """
    settle_threads(threads)
    keep_freed_memory()
    from diffgen.cli.sweep import run_sweep

    given = {
        "prompts": prompts,
        "prompt_file": prompt_file,
        "strict": strict,
        "model": model,
        "vae": vae,
        "prediction": prediction,
        "zero_snr": zero_snr,
        "clip_skip": clip_skip,
        "negative": negative,
        "seeds": seeds,
        "samplers": samplers,
        "schedules": schedules,
        "steps": steps,
        "nfe": nfe,
        "guidance": guidance,
        "width": width,
        "height": height,
        "reference": reference,
        "repeats": repeats,
        "clip": clip,
        "target_psnr": target_psnr,
        "budget_seconds": budget_seconds,
        "device": device,
        "dtype": dtype,
    }
    run_sweep(
        {name: value for name, value in given.items() if value is not None},
        compare_with=compare_with,
        max_slower=max_slower,
        max_worse=max_worse,
        trajectory=trajectory,
        output=output,
        fresh=fresh,
        as_json=as_json,
        quiet=quiet,
        verbose=verbose,
    )
