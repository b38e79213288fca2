"""`archc doctor`: what is installed here, on which device, and what would run of a package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

from archc.cli.talk import say, version

BASE = ("lark", "networkx", "jinja2", "pydantic", "typer", "rich")
OPTIONAL = {
    "torch": "a package needs it",
    "triton": "its kernels on a GPU need it",
    "numpy": "training reads its data with it",
    "safetensors": "checkpoints need it",
    "transformers": "AutoModel and parity tests need it",
}
OLDEST = (8, 0)  # compute capability that the kernels are made for
LONGEST = 120  # seconds: a cold disk and a large torch
# Runs in a process of its own: importing torch takes seconds, may print, and may crash.
PROBE = """
import json, os
import torch
found = {"cuda": torch.version.cuda, "hip": torch.version.hip, "threads": torch.get_num_threads(), "devices": []}
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        found["devices"].append({"name": p.name, "capability": [p.major, p.minor], "bytes": p.total_memory})
try:
    import triton
    found["triton"] = triton.__version__
except Exception as failure:
    found["triton_error"] = f"{type(failure).__name__}: {failure}"
found["interpreted"] = os.environ.get("TRITON_INTERPRET") == "1"
print(json.dumps(found))
"""


def doctor() -> None:
    """What is installed, which GPU there is, and which kernels a package would run."""
    rows = [("archc", version()), ("python", f"{sys.version.split()[0]}  {sys.executable}")]
    rows += [(name, installed(name) or "missing: archc needs it") for name in BASE]
    rows += [(name, installed(name) or f"not installed; {why}") for name, why in OPTIONAL.items()]
    rows.append(("git", shutil.which("git") or "not installed; archc build --merge needs it"))
    if installed("torch"):
        rows += devices(probed())
    width = max(len(name) for name, _ in rows)
    say("\n".join(f"{name:<{width}}  {what}" for name, what in rows))


def installed(name: str) -> str | None:
    """The version of a distribution, which is not imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def probed() -> dict[str, Any]:
    """What torch says of this machine; `error` if it says nothing."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=LONGEST, check=False
        )
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return {"error": f"importing torch took more than {LONGEST} s"}
    except (ValueError, IndexError):
        found = None
    if not isinstance(found, dict):
        said = done.stderr.strip().splitlines()
        return {"error": said[-1] if said else f"exit status {done.returncode}"}
    return found


def devices(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The devices that torch sees, and what of a package runs there."""
    if "error" in found:
        return [("torch fails", found["error"])]
    backend = f"CUDA {found['cuda']}" if found["cuda"] else f"ROCm {found['hip']}" if found["hip"] else "CPU only"
    rows = [("torch built for", backend), ("CPU threads", f"{found['threads']}")]
    for i, device in enumerate(found["devices"]):
        major, minor = device["capability"]
        rows.append((f"GPU {i}", f"{device['name']}, sm_{major}{minor}, {device['bytes'] / 2**30:.1f} GiB"))
    return [*rows, ("kernels", kernels(found))]


def kernels(found: dict[str, Any]) -> str:
    """Which form of its operations a package takes, by the rule of its `dispatch.py`."""
    if "triton_error" in found and (found["devices"] or found["interpreted"]):
        return f"none: triton cannot be imported ({found['triton_error']})"
    if found["interpreted"]:
        return "Triton's interpreter everywhere (TRITON_INTERPRET=1): slow, for tests"
    if not found["devices"]:
        return "plain torch on the CPU"
    old = [device["name"] for device in found["devices"] if tuple(device["capability"]) < OLDEST]
    if old:
        return f"Triton on the GPU; not tested below sm_{OLDEST[0]}{OLDEST[1]}: {', '.join(old)}"
    return "Triton on the GPU, plain torch for float64 and on the CPU"
