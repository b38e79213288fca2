"""Train this model: python -m PACKAGE.train --data PATH... --out DIR.

A step is a function of the weights, the optimizer's state, the seed and the step's number, so a run that was stopped
and resumed goes on exactly as if it had not been (bitwise, on a CPU).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint, data
from .command import INTERRUPTED, CommandError, choose, guarded, interrupts
from .loss import SHARE, cross_entropy
from .model import CONTEXT, NAME, VOCAB, Model
from .optimizer import Optimizer, learning_rate
from .penalty import penalise
from .precision import cast_
from .progress import Pace, json_log, progress
from .train_options import Options, parser

EVAL_BATCHES = 16
Forward = Callable[..., Tensor]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last step, the losses in nats (nan where nothing was measured)."""

    step: int
    loss: float
    held_out_loss: float
    unigram_entropy: float


def train(options: Options) -> Outcome:
    """Run, or go on with, a training run."""
    if options.length > CONTEXT:
        raise CommandError(f"--length {options.length} is beyond the context of the spec, {CONTEXT}")
    device, dtype = choose(options.device, options.dtype)
    if any(
        not parameter.is_floating_point() for parameter in checkpoint.empty(torch.device("meta"), dtype).parameters()
    ):
        raise CommandError("int8 weights are for inference: train the spec without weights=int8, then quantise")
    corpus = data.load(options.data, vocab=VOCAB, length=options.length, seed=options.seed, ids=options.ids)
    model = build(options.seed, device, dtype)
    optimizer = Optimizer(model, weight_decay=options.weight_decay, clip=options.clip)
    settings = _settings(options, corpus, dtype)
    step = resume(options, model, optimizer, settings)
    forward = prepare(model, options)
    _introduce(model, corpus, device, dtype)
    options.out.mkdir(parents=True, exist_ok=True)  # if it cannot be written to, now is the time to know

    loss = held_out = math.nan
    rows = options.batch * options.grad_accumulation
    with ExitStack() as stack:
        log = stack.enter_context(json_log(options.log_json))
        stopping = stack.enter_context(interrupts())
        batches = stack.enter_context(_ahead(lambda s: corpus.batch(s, rows), step, options.steps))
        pace = Pace(step, options.steps, rows * options.length)
        show = stack.enter_context(progress(pace))
        while step < options.steps and not stopping.is_set():
            torch.manual_seed((options.seed * 1_000_003 + step) % 2**63)  # for models that draw numbers
            lr = learning_rate(step, peak=options.lr, warmup=options.warmup, steps=options.steps)
            loss = accumulate(forward, optimizer, next(batches), options.grad_accumulation, device)
            if not math.isfinite(loss):
                raise CommandError(_diverged(loss, step, options.out))
            norm = optimizer.step(lr)
            step += 1
            show.advance(loss)
            log(
                {"step": step, "loss": loss, "lr": lr, "grad_norm": norm, "tokens_per_s": round(pace.tokens_per_second)}
            )
            if _due(step, options.eval_every, options.steps):
                held_out = evaluate(model, forward, corpus, options.batch, device)
                log({"step": step, "held_out_loss": held_out})
                show.say(f"step {step}  held-out loss {held_out:.4f}")
            if _due(step, options.checkpoint_every, options.steps) or stopping.is_set():
                path = checkpoint.save(options.out, step, model, optimizer=optimizer.state(), run=settings)
                checkpoint.prune(options.out, options.keep)
                show.say(f"step {step}  checkpoint {path}")
    return Outcome(step, loss, held_out, corpus.unigram_entropy)


def build(seed: int, device: torch.device, dtype: torch.dtype) -> Model:
    """The model with its initial weights."""
    model = checkpoint.empty(device, torch.float32)
    torch.manual_seed(seed)
    model.init_weights()
    cast_(model, dtype, model.keep_fp32())
    return model


def prepare(model: Model, options: Options) -> Forward:
    """The model as the loop calls it. Compilation happens here, and so would any wrapping for several devices."""
    model.recompute = options.recompute
    if options.activation_penalty:
        penalise(model, options.activation_penalty)
    return torch.compile(model) if options.compile else model


def accumulate(forward: Forward, optimizer: Optimizer, batch: data.Batch, parts: int, device: torch.device) -> float:
    """Leave the gradients of the batch's mean loss over all its targets; returns that loss."""
    losses = []
    for part in batch.split(parts):
        if part.n_targets:
            share = part.n_targets / batch.n_targets
            SHARE.fill_(share)
            loss = loss_of(forward, part.to(device)) * share
            torch.autograd.backward(loss)
            optimizer.collect()
            losses.append(loss.detach())
    return torch.stack(losses).sum().item() if losses else math.nan


def loss_of(forward: Forward, batch: data.Batch) -> Tensor:
    """Mean cross-entropy of the batch in nats."""
    return cross_entropy(forward(batch.tokens, positions=batch.positions), batch.targets)


@torch.no_grad()
def evaluate(model: Model, forward: Forward, corpus: data.Corpus, batch: int, device: torch.device) -> float:
    """Mean loss over the first held-out tokens, the same ones every time."""
    model.eval()
    total, n_targets = 0.0, 0
    for rows in corpus.held_out_batches(batch, EVAL_BATCHES):
        if rows.n_targets:
            total += loss_of(forward, rows.to(device)).item() * rows.n_targets
            n_targets += rows.n_targets
    model.train()
    return total / n_targets if n_targets else math.nan


def resume(options: Options, model: Model, optimizer: Optimizer, settings: dict[str, object]) -> int:
    """Load the newest checkpoint if asked to; returns the number of steps that are done."""
    path = checkpoint.latest(options.out)
    if not options.resume:
        if path:
            raise CommandError(f"{options.out} holds {path.name}: give --resume to go on, or another --out")
        return 0
    if not path:
        print(f"nothing to resume in {options.out}: starting from step 0")
        return 0
    manifest = checkpoint.load(path, model)
    state = checkpoint.load_optimizer(path)
    if state:
        optimizer.load(state)
    elif manifest.step:
        raise CommandError(f"{path} has no optimizer state to resume from")
    else:
        optimizer.take_weights()
    before = {**settings, **manifest.run}
    changed = [f"{key} {before[key]} -> {now}" for key, now in settings.items() if before[key] != now]
    if changed:
        print("changed since the checkpoint: " + ", ".join(changed))
    print(f"resumed from {path}")
    return manifest.step


def _introduce(model: Model, corpus: data.Corpus, device: torch.device, dtype: torch.dtype) -> None:
    n_parameters = sum(p.numel() for p in model.parameters())
    skipped = f" ({corpus.skipped} binary or unreadable files left out)" if corpus.skipped else ""
    print(f"model {NAME}: {n_parameters:,} parameters, {str(dtype).removeprefix('torch.')} on {device}")
    print(
        f"data: {corpus.n_files:,} files{skipped}, {corpus.train.n_tokens:,} tokens to train on, "
        f"{corpus.held_out.n_tokens:,} held out, unigram entropy {corpus.unigram_entropy:.4f} nats"
    )


def _settings(options: Options, corpus: data.Corpus, dtype: torch.dtype) -> dict[str, object]:
    """What a checkpoint says about its run: everything that the next step depends on, and no paths."""
    kept = ("steps", "batch", "grad_accumulation", "length", "lr", "warmup", "weight_decay", "clip", "seed")
    chosen = asdict(options)
    return {
        **{key: chosen[key] for key in (*kept, "recompute", "activation_penalty")},
        "dtype": str(dtype).removeprefix("torch."),
        "data": corpus.fingerprint(),
    }


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def _diverged(loss: float, step: int, out: Path) -> str:
    newest = checkpoint.latest(out)
    kept = f"{newest} is untouched" if newest else "there is no checkpoint yet"
    return f"the loss of step {step + 1} is {loss}; nothing was updated or written ({kept}): try a lower --lr"


@contextmanager
def _ahead(make: Callable[[int], data.Batch], start: int, stop: int) -> Iterator[Iterator[data.Batch]]:
    """Batches start..stop-1, each made on another thread while the one before is trained on."""
    with ThreadPoolExecutor(1) as pool:

        def batches() -> Iterator[data.Batch]:
            coming = pool.submit(make, start)
            for step in range(start, stop):
                ready = coming.result()
                if step + 1 < stop:
                    coming = pool.submit(make, step + 1)
                yield ready

        yield batches()


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    chosen = vars(parser().parse_args(arguments))
    options = Options(**{**chosen, "data": tuple(chosen["data"])})

    def action() -> int:
        end = train(options)
        if math.isnan(end.loss):
            print(f"step {end.step} was reached before; for more, give more --steps")
            return 0
        print(
            f"step {end.step}  loss {end.loss:.4f}  held-out loss {end.held_out_loss:.4f}  "
            f"unigram entropy {end.unigram_entropy:.4f} nats"
        )
        if end.step < options.steps:
            print("stopped; --resume goes on from here")
            return INTERRUPTED
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
