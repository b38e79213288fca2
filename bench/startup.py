"""How long `archc analyze` takes as a whole process, against the bare imports of what it stands on.

    python bench/startup.py [ROUNDS]

The commands take turns, so that a busy moment of the machine falls on all of them; medians are compared. Exits
non-zero if `archc analyze` of Jamba takes more than three times as long as the imports, or if a spec of a thousand
million layers takes noticeably longer than Jamba's 32.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 15
MAX_RATIO = 3.0
# Both analyses should take the same time; this much is left for noise.
MAX_RATIO_OF_REPEATS = 1.25

IMPORTS = "import lark, networkx, jinja2, pydantic, typer"
MANY_LAYERS = """\
model many_layers

vocab    65536
d_model  4096
context  256Ki
norm     rms(eps=1e-6)
mlp      none

block x1000000000 < mamba >
"""


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        many_layers = Path(folder) / "many_layers.arch"
        many_layers.write_text(MANY_LAYERS, encoding="utf-8")
        commands = {
            "imports": [sys.executable, "-c", IMPORTS],
            "jamba_v0_1": [sys.executable, "-m", "archc", "analyze", "specs/jamba_v0_1.arch"],
            "x1000000000": [sys.executable, "-m", "archc", "analyze", str(many_layers)],
        }
        for command in commands.values():  # once without the clock: bytecode is written, files are in memory
            seconds(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(seconds(command))

    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"whole-process time in ms over {rounds} interleaved rounds")
    for name, values in times.items():
        print(
            f"  {name:12} median {1e3 * median[name]:6.1f}  min {1e3 * min(values):6.1f}  max {1e3 * max(values):6.1f}"
        )
    ratio = median["jamba_v0_1"] / median["imports"]
    repeats = median["x1000000000"] / median["jamba_v0_1"]
    print(f"analyze / imports      {ratio:.2f}  (at most {MAX_RATIO})")
    print(f"x1000000000 / jamba    {repeats:.2f}  (at most {MAX_RATIO_OF_REPEATS})")
    return 0 if ratio <= MAX_RATIO and repeats <= MAX_RATIO_OF_REPEATS else 1


def seconds(command: list[str]) -> float:
    """Wall-clock time of a whole process; its output is thrown away, a failure ends the benchmark."""
    begin = time.perf_counter()
    run = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - begin
    if run.returncode:
        sys.exit(f"{' '.join(command)} failed with exit status {run.returncode}\n{run.stderr}")
    return taken


if __name__ == "__main__":
    sys.exit(main())
