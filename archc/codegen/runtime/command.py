"""What the package's commands share: argument types, the device and dtype, and errors as one message."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .data import DataError
from .shards import CheckpointError

INTERRUPTED = 130  # the exit status of a process that Ctrl-C stopped
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CommandError(RuntimeError):
    """A command that cannot go on; the message is for the person at the keyboard."""


def count(text: str) -> int:
    """An integer from 1."""
    if (value := _integer(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def natural(text: str) -> int:
    """An integer from 0."""
    if (value := _integer(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def amount(text: str) -> float:
    """A finite number from 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number from 0")
    return value


def probability(text: str) -> float:
    """A number from 0 to 1."""
    if (value := amount(text)) > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than 1")
    return value


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `choose` reads."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto is cuda where there is one")
    parser.add_argument(
        "--dtype", choices=("auto", *_DTYPES), default="auto", help="auto is bfloat16 on cuda, float32 elsewhere"
    )


def choose(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and the dtype of the parameters that the options mean."""
    has_cuda = torch.cuda.is_available()
    try:
        chosen = torch.device(("cuda" if has_cuda else "cpu") if device == "auto" else device)
    except RuntimeError:
        raise CommandError(f"{device!r} is not a device") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise CommandError(f"this machine has no {device}: {torch.cuda.device_count()} CUDA devices")
    if dtype != "auto":
        return chosen, _DTYPES[dtype]
    return chosen, torch.bfloat16 if chosen.type == "cuda" else torch.float32


def guarded(action: Callable[[], int]) -> int:
    """Run a command; what a person can do something about becomes a message and status 1."""
    try:
        return action()
    except (CommandError, CheckpointError, DataError) as error:
        message = str(error)
    except torch.OutOfMemoryError:
        message = "out of memory on the device: try a smaller --batch or --length"
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"error: {message}", file=sys.stderr)
    return 1


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a termination signal sets, so that the step in progress ends well; a second one kills."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def stop(number: int, _: object) -> None:
        stopping.set()
        signal.signal(number, before[number])

    before = {int(number): signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
