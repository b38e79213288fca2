"""How long commands take as whole processes, against the bare imports of what they stand on.

    python bench/startup.py [ROUNDS]

The commands take turns, so that a busy moment of the machine falls on all of them; medians are compared. What a command
stands on is asked of the command itself: every module that it imports and that is not archc's, imported alone.

Exits non-zero if `--help`, `check` or `fmt` take more than 1.5 times as long as those imports, if `analyze` of Jamba
takes more than three times as long as the imports of all dependencies, or if a spec of a thousand million layers takes
noticeably longer than Jamba's 32.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 15
MAX_RATIO = 3.0
MAX_RATIO_OF_SMALL = 1.5
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


SMALL = {
    "--help": ["--help"],
    "check": ["check", "specs/jamba_v0_1.arch"],
    "fmt": ["fmt", "--check", "specs/jamba_v0_1.arch"],
}
ARCHC = [sys.executable, "-m", "archc"]
BYTECODE = str(Path(tempfile.gettempdir()) / "archc-startup-bytecode")  # written once, as an installation has it


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        many_layers = Path(folder) / "many_layers.arch"
        many_layers.write_text(MANY_LAYERS, encoding="utf-8")
        commands = {
            "imports": [sys.executable, "-c", IMPORTS],
            "jamba_v0_1": [*ARCHC, "analyze", "specs/jamba_v0_1.arch"],
            "x1000000000": [*ARCHC, "analyze", str(many_layers)],
        }
        for name, words in SMALL.items():
            bare = Path(folder) / f"{name.strip('-')}.py"
            bare.write_text(dependencies(words), encoding="utf-8")
            commands |= {name: [*ARCHC, *words], f"{name} bare": [sys.executable, str(bare)]}
        for command in commands.values():  # once without the clock: bytecode is written, files are in memory
            seconds(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(seconds(command))

    median = {name: statistics.median(values) for name, values in times.items()}
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"whole-process time in ms over {rounds} interleaved rounds; load of the machine {load}")
    for name, values in times.items():
        print(
            f"  {name:12} median {1e3 * median[name]:6.1f}  min {1e3 * min(values):6.1f}  max {1e3 * max(values):6.1f}"
        )
    ratios = [(f"{name} / its imports", median[name] / median[f"{name} bare"], MAX_RATIO_OF_SMALL) for name in SMALL]
    ratios.append(("analyze / imports", median["jamba_v0_1"] / median["imports"], MAX_RATIO))
    ratios.append(("x1000000000 / jamba", median["x1000000000"] / median["jamba_v0_1"], MAX_RATIO_OF_REPEATS))
    for what, ratio, most in ratios:
        print(f"{what:20} {ratio:.2f}  (at most {most})")
    return 0 if all(ratio <= most for _, ratio, most in ratios) else 1


def dependencies(words: list[str]) -> str:
    """A program that imports what a command imports, in the same order, and nothing of archc."""
    command = [sys.executable, "-X", "importtime", "-m", "archc", *words]
    run = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    traced = [line for line in run.stderr.splitlines() if line.startswith("import time:")][1:]
    names = [line.rpartition("|")[2].strip() for line in traced]
    lines = ["from importlib import import_module", "for name in ("]
    lines += [f"    {name!r}," for name in names if name.split(".")[0] != "archc"]
    return "\n".join(
        [*lines, "):", "    try:", "        import_module(name)", "    except ImportError:", "        pass"]
    )


def seconds(command: list[str]) -> float:
    """Wall-clock time of a whole process; its output is thrown away, a failure ends the benchmark."""
    begin = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPYCACHEPREFIX": BYTECODE, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - begin
    if run.returncode:
        sys.exit(f"{' '.join(command)} failed with exit status {run.returncode}\n{run.stderr}")
    return taken


if __name__ == "__main__":
    sys.exit(main())
