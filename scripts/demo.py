"""The demo of `make demo`: a spec becomes numbers, a package, a trained model and some text.

Everything is done by the commands that a user would type; they are printed before they run. Exits non-zero if
the loss does not end clearly below the unigram entropy of the text, which is what a model scores that has learnt
how often each byte occurs and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out"
PACKAGE = "jamba_tiny"
CHECKPOINTS = OUT / "jamba_tiny_checkpoints"
LOG = OUT / "jamba_tiny_train.jsonl"

# Chosen for about three and a half minutes of training on two cores.
STEPS = 300
BATCH = 8
LENGTH = 256
LEARNING_RATE = 2e-3
WARMUP = 30
SEED = 0
EVAL_EVERY = 50

CORPUS_BYTES = 3_000_000
PROMPT = "import os\n\n\ndef "
NEW_TOKENS = 300
TEMPERATURE = 0.7

# "Clearly below" the unigram entropy: at least a quarter of it is gone.
MAX_SHARE_OF_ENTROPY = 0.75


def main() -> int:
    """Run the demo; the exit status is 0 if the model learnt what it should."""
    options = read_options()
    begin = time.monotonic()

    step("The budget of Jamba v0.1, from its spec alone (torch is not imported)")
    archc("analyze", "specs/jamba_v0_1.arch")

    step("A Jamba in small: the spec, and the package that it becomes")
    print((ROOT / "specs" / f"{PACKAGE}.arch").read_text(encoding="utf-8"))
    fresh(CHECKPOINTS, LOG)
    archc("build", f"specs/{PACKAGE}.arch", "-o", f"out/{PACKAGE}")

    files = corpus()
    entropy = unigram_entropy(files)
    step(f"Training on {len(files)} files of Python's standard library; their unigram entropy is {entropy:.3f} nats")
    training = time.monotonic()
    python(
        f"{PACKAGE}.train",
        *("--data", *map(str, files)),
        *("--out", CHECKPOINTS.name),
        *("--steps", str(options.steps)),
        *("--batch", str(options.batch)),
        *("--length", str(options.length)),
        *("--lr", str(options.lr)),
        *("--warmup", str(min(WARMUP, options.steps))),
        *("--seed", str(SEED)),
        *("--eval-every", str(min(EVAL_EVERY, options.steps))),
        *("--log-json", LOG.name),
    )
    training = time.monotonic() - training

    step("Generating")
    python(
        f"{PACKAGE}.generate",
        *("--checkpoint", CHECKPOINTS.name),
        *("--prompt", PROMPT),
        *("--tokens", str(NEW_TOKENS)),
        *("--temperature", str(TEMPERATURE)),
    )

    step("Did it learn?")
    first, last = losses(LOG)
    limit = MAX_SHARE_OF_ENTROPY * entropy
    print(f"loss: {first:.3f} at first, {last:.3f} at the end on held-out text; the entropy is {entropy:.3f}")
    print(f"training took {training:.0f} s, everything {time.monotonic() - begin:.0f} s")
    if not last <= limit:  # also true of a loss that is not a number
        print(f"no: {last:.3f} is not below {limit:.3f}, {MAX_SHARE_OF_ENTROPY:.0%} of the entropy", file=sys.stderr)
        return 1
    print(f"yes: {last:.3f} is below {limit:.3f}, {MAX_SHARE_OF_ENTROPY:.0%} of the entropy")
    return 0


def read_options() -> argparse.Namespace:
    """The sizes of the training run, by default the constants above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH, help="sequences in a step")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens (bytes) in a sequence")
    parser.add_argument("--lr", type=float, default=LEARNING_RATE, help="largest learning rate")
    return parser.parse_args()


def corpus() -> list[Path]:
    """Files of the standard library in the order of their names, CORPUS_BYTES in all or all that there are."""
    chosen, total = [], 0
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        if total >= CORPUS_BYTES:
            break
        chosen.append(path)
        total += path.stat().st_size
    return chosen


def unigram_entropy(files: list[Path]) -> float:
    """Nats a byte of a model that knows only how often each byte occurs."""
    counts: Counter[int] = Counter()
    for path in files:
        counts.update(path.read_bytes())
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values())


def losses(log: Path) -> tuple[float, float]:
    """The loss of the first step, and of held-out text at the end, from the training log (an object a line)."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    first = next(record["loss"] for record in records if "loss" in record)
    last = next(record["held_out_loss"] for record in reversed(records) if "held_out_loss" in record)
    return float(first), float(last)


def step(title: str) -> None:
    """Announce a part of the demo."""
    print(f"\n\033[1m=== {title}\033[0m" if sys.stdout.isatty() else f"\n=== {title}", flush=True)


def archc(*arguments: str) -> None:
    """`archc ARGUMENTS` in the repository's root."""
    run(["archc", *arguments], [sys.executable, "-m", "archc", *arguments], ROOT)


def python(module: str, *arguments: str) -> None:
    """`python -m MODULE ARGUMENTS` beside the package, where its directory's name imports it."""
    run(["python", "-m", module, *arguments], [sys.executable, "-m", module, *arguments], OUT)


def run(shown: list[str], command: list[str], folder: Path) -> None:
    """Print a command and run it; a failing one ends the demo with its exit status."""
    where = "" if folder == ROOT else f"cd {folder.relative_to(ROOT)} && "
    words = [word.replace("\n", "\\n") for word in shown]
    if len(words) > 40:
        first = next(i for i, word in enumerate(words) if word.endswith(".py"))
        last = max(i for i, word in enumerate(words) if word.endswith(".py"))
        line = " ".join([*words[: first + 1], "...", *words[last:]])
    else:
        line = shlex.join(words)
    print(f"$ {where}{line}", flush=True)
    status = subprocess.run(command, cwd=folder, check=False).returncode
    if status:
        print(f"the command above failed with exit status {status}", file=sys.stderr)
        sys.exit(status)


def fresh(*paths: Path) -> None:
    """Remove what an earlier demo left, so that training starts at step 0; the package itself is archc's to renew."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
