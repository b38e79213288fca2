"""Generate from a checkpoint: python -m PACKAGE.generate --checkpoint DIR --prompt TEXT.

The prompt fills the cache, then every token is one step of the model. Tokens are bytes of UTF-8 text, or ids (--ids).
"""

from __future__ import annotations

import argparse
import codecs
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint
from .command import CommandError, add_device_arguments, amount, choose, count, guarded, natural, probability
from .model import CONTEXT, NAME, VOCAB, Model

PREFILL = 2048  # tokens of the prompt in one call: bounds the memory of their logits
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what could command a terminal


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn. Temperature 0 takes the likeliest; the filters apply after it, in this order."""

    temperature: float = 1.0
    top_k: int = 0  # the k likeliest tokens; 0 for all
    top_p: float = 1.0  # the fewest likeliest tokens that hold this probability together
    min_p: float = 0.0  # tokens at least this likely, relative to the likeliest


def sample(logits: Tensor, how: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """One token for each row of logits [B, V]; [B], int64."""
    if how.temperature == 0:
        return logits.argmax(-1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    probabilities = (logits / how.temperature).softmax(-1)
    probabilities, ids = torch.sort(probabilities, stable=True, dim=-1, descending=True)  # the likeliest first
    kept = torch.ones_like(probabilities, dtype=torch.bool)
    if how.top_k:
        kept[:, how.top_k :] = False
    if how.top_p < 1:
        probabilities = _renormalised(probabilities, kept)
        kept &= probabilities.cumsum(-1) - probabilities < how.top_p
    if how.min_p > 0:
        kept &= probabilities >= how.min_p * probabilities[:, :1]
    kept[:, 0] = True  # whatever the filters, the likeliest token stays
    choice = torch.multinomial(_renormalised(probabilities, kept), 1, generator=generator)
    return torch.gather(ids, -1, choice).squeeze(-1)


@torch.no_grad()
def stream(
    model: Model,
    tokens: Tensor,
    n_tokens: int,
    *,
    how: Sampling | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the next token [B] of every row of `tokens` [B, T], n_tokens times."""
    how = how or Sampling()
    batch, length = tokens.shape
    if not length:
        raise CommandError("the prompt is empty: generation goes on from at least one token")
    dtype = min((p.dtype for p in model.parameters()), key=lambda dtype: dtype.itemsize)
    cache = model.init_cache(batch, length + n_tokens, dtype=dtype, device=tokens.device)
    last = torch.empty(0)
    for start in range(0, length, PREFILL):
        last = model(tokens[:, start : start + PREFILL], cache=cache)[:, -1]
    for i in range(n_tokens):
        token = sample(last, how, generator)
        yield token
        if i + 1 < n_tokens:
            last = model(token[:, None], cache=cache)[:, -1]


def generate(
    model: Model,
    tokens: Tensor,
    n_tokens: int,
    *,
    how: Sampling | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`tokens` [B, T] (int64) followed by n_tokens generated ones; [B, T + n_tokens]."""
    new = list(stream(model, tokens, n_tokens, how=how, generator=generator))
    return torch.cat([tokens, torch.stack(new, 1)], 1) if new else tokens


def load_model(path: Path, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of a checkpoint, ready to generate."""
    model = checkpoint.empty(device, dtype)
    checkpoint.load(checkpoint.find(path), model)
    model.eval()
    return model


class Bytes:
    """Bytes to text as they come: a character appears with its last byte, invalid ones as U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        if token < 256:
            return self._decoder.decode(bytes([token]))
        return self.end() + f"<{token}>"  # an id that is no byte

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


class Ids:
    """Token ids as numbers."""

    def feed(self, token: int) -> str:
        return f"{token} "

    def end(self) -> str:
        return ""


def encode(prompt: str, ids: bool) -> list[int]:
    """The prompt as tokens."""
    if not ids:
        tokens = list(prompt.encode("utf-8", "surrogateescape"))
    else:
        try:
            tokens = [int(word) for word in re.split(r"[\s,]+", prompt.strip()) if word]
        except ValueError:
            raise CommandError("with --ids, the prompt is whole numbers between spaces or commas") from None
    if not tokens:
        raise CommandError("the prompt is empty: generation goes on from at least one token")
    unknown = [token for token in tokens if not 0 <= token < VOCAB]
    if unknown:
        raise CommandError(f"the prompt holds the id {unknown[0]}; the model's ids are 0 to {VOCAB - 1}")
    return tokens


def run(options: argparse.Namespace) -> int:
    """Generate as the command's options say."""
    device, dtype = choose(options.device, options.dtype)
    prompt = options.prompt
    if prompt is None:
        prompt = options.prompt_file.read_text(encoding="utf-8", errors="surrogateescape")
    tokens = encode(prompt, options.ids)
    model = load_model(options.checkpoint, device, dtype)
    if len(tokens) + options.tokens > CONTEXT:
        print(f"note: this goes beyond the context of the spec, {CONTEXT} tokens", file=sys.stderr)
    how = Sampling(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, min_p=options.min_p)
    generator = torch.Generator(device).manual_seed(options.seed)
    rows = torch.tensor([tokens] * options.batch, device=device)
    new = stream(model, rows, options.tokens, how=how, generator=generator)
    if options.batch == 1:
        _show(tokens, (int(token) for token in new), options.ids)
        return 0
    for i, row in enumerate(torch.stack(list(new), 1).tolist(), 1):
        print(f"--- {i} of {options.batch}")
        _show(tokens, iter(row), options.ids)
    return 0


def _renormalised(probabilities: Tensor, kept: Tensor) -> Tensor:
    probabilities = probabilities * kept
    return probabilities / probabilities.sum(-1, keepdim=True)


def _show(prompt: list[int], new: Iterator[int], ids: bool) -> None:
    """Print prompt and continuation, every token when it is there."""
    decoder: Bytes | Ids = Ids() if ids else Bytes()
    clean: Callable[[str], str] = (lambda text: _CONTROL.sub("\ufffd", text)) if sys.stdout.isatty() else str
    print(clean("".join(map(decoder.feed, prompt))), end="", flush=True)
    for token in new:
        print(clean(decoder.feed(token)), end="", flush=True)
    print(clean(decoder.end()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.generate", description=f"Generate from {NAME}.")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a checkpoint, or a run's --out")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT")
    prompt.add_argument("--prompt-file", type=Path, metavar="FILE")
    parser.add_argument("--ids", action="store_true", help="the prompt and the output are token ids, not text")
    parser.add_argument("--tokens", type=count, default=256, metavar="N", help="tokens to generate (default 256)")
    parser.add_argument("--temperature", type=amount, default=0.8, metavar="X", help="0 is greedy (default 0.8)")
    parser.add_argument("--top-k", type=natural, default=0, metavar="K", help="of the K likeliest (default 0: all)")
    parser.add_argument("--top-p", type=probability, default=1.0, metavar="P", help="of the likeliest with P in sum")
    parser.add_argument("--min-p", type=probability, default=0.0, metavar="P", help="at least P times the likeliest")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="continuations of the prompt (default 1)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N")
    add_device_arguments(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
