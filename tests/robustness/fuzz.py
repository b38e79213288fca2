"""A long search for inputs that archc takes badly: `make fuzz`.

    python -m tests.robustness.fuzz [COUNT] [WORKERS]

COUNT inputs (1,000,000 unless said) are drawn from a corpus that begins with the shipped specs and grows by every input
that reaches a line of archc for the first time; then as many syntax trees and specs are drawn by hypothesis. Every
worker is a process with the limits of `worker.py`. What goes wrong is written to out/fuzz/, and ends the search.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.queues import Queue
from pathlib import Path
from random import Random

from tests import spec_fields, spec_texts
from tests.robustness import inputs
from tests.robustness.command import problem
from tests.robustness.coverage import Coverage
from tests.robustness.worker import HANG, Hangs, limit, watch_writes

FOUND = Path(__file__).parents[2] / "out" / "fuzz"
BATCH = 100  # inputs between two reports
SILENCE = 300  # seconds without a report after which a worker counts as hanging
Report = tuple[int, int, int, str]  # inputs, lines reached, size of the corpus, what went wrong


def guided(seed: int, count: int, reports: Queue[Report]) -> None:
    """Give archc `count` inputs, each a change of one that reached something new."""
    chance = Random(seed)
    coverage = Coverage()
    corpus = [text.encode("utf-8", "replace") for text in inputs.specs()]
    limit()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        outside = watch_writes(folder)
        for i in range(count):
            data = inputs.hostile(chance) if chance.random() < 0.1 else _changed(chance, corpus)
            before = len(coverage)
            signal.setitimer(signal.ITIMER_PROF, 10 * HANG)  # tracing slows everything down
            try:
                with coverage.on():
                    wrong, _ = problem(data, chance.randrange(20), folder, seconds=10 * HANG)
            except Hangs:
                wrong = f"no end:\n{traceback.format_exc()[-1500:]}"
            except Exception:
                wrong = traceback.format_exc()[-3000:]
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            if outside:
                wrong = wrong or f"it touches {outside[:3]}"
            if len(coverage) > before and len(data) < 4_000:
                corpus.append(data)
            if wrong:
                _keep(data, wrong)
            if wrong or (i + 1) % BATCH == 0 or i + 1 == count:
                reports.put((i % BATCH + 1, len(coverage), len(corpus), wrong or ""))
        os.chdir("/")


def _changed(chance: Random, corpus: list[bytes]) -> bytes:
    """A change of something in the corpus, what was found last more often than the rest."""
    recent = corpus[-200:] if chance.random() < 0.5 else corpus
    text = chance.choice(recent).decode("utf-8", "replace")
    if chance.random() < 0.2:
        other = chance.choice(corpus).decode("utf-8", "replace")
        text = text[: chance.randint(0, len(text))] + other[chance.randint(0, len(other)) :]
    for _ in range(1 + int(chance.expovariate(0.7))):
        text = chance.choice(inputs.CHANGES)(chance, text)[:20_000]
    data = text.encode("utf-8", "replace")
    return inputs.flipped(chance, data) if chance.random() < 0.03 else data


def specs(seed: int, count: int, reports: Queue[Report]) -> None:
    """Draw `count` trees, texts and layers by hypothesis, and check what holds of all of them."""
    from tests.robustness.test_specs import Tally, drawn, trees

    for begin in range(0, count, BATCH):
        part = min(BATCH, count - begin)
        tally, wrong = Tally(), ""
        try:
            match begin // BATCH % 3:
                case 0:
                    trees(part, seed + begin)
                case 1:
                    drawn(spec_texts.texts(), tally.check, part, seed + begin)
                case _:
                    drawn(spec_fields.models(), tally.check, part, seed + begin)
        except Exception:
            wrong = f"seed {seed + begin}\n{traceback.format_exc()[-5000:]}"
            _keep(b"", wrong)
        reports.put((part, 0, tally.models, wrong))


def _keep(data: bytes, wrong: str) -> None:
    FOUND.mkdir(parents=True, exist_ok=True)
    stem = f"{time.time_ns()}"
    (FOUND / f"{stem}.arch").write_bytes(data)
    (FOUND / f"{stem}.txt").write_text(wrong, encoding="utf-8")


def search(way: str, count: int, workers: int, seed: int) -> bool:
    """Share `count` inputs among processes, and say every minute how far they are. Whether nothing was found."""
    reports: Queue[Report] = multiprocessing.Queue()
    shares = [count // workers + (i < count % workers) for i in range(workers)]
    action = {"inputs": guided, "specs": specs}[way]
    processes = [
        multiprocessing.Process(target=action, args=(seed + i * 10**9, share, reports), daemon=True)
        for i, share in enumerate(shares)
    ]
    for process in processes:
        process.start()
    done = lines = corpus = 0
    began = said = time.monotonic()
    wrong = ""
    while done < count and not wrong:
        inputs_done, reached, size, wrong = reports.get(timeout=SILENCE)
        done, lines, corpus = done + inputs_done, max(lines, reached), max(corpus, size)
        if time.monotonic() - said > 60 or done >= count or wrong:
            said = time.monotonic()
            figures = f", {lines:,} lines of archc reached, corpus of {corpus:,}" if lines else ""
            print(f"{done:,} {way} in {said - began:.0f} s{figures}", flush=True)
    for process in processes:
        process.terminate()
    if wrong:
        print(f"{wrong}\n\nkept in {FOUND}", file=sys.stderr)
    return not wrong


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1
    seed = int(os.environ.get("ARCHC_SEED") or time.time_ns() // 10**6)
    print(f"{count:,} inputs and {count:,} drawn specs, {workers} processes, seed {seed}", flush=True)
    return 0 if all(search(way, count, workers, seed) for way in ("inputs", "specs")) else 1


if __name__ == "__main__":
    sys.exit(main())
