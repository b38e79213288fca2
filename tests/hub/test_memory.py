"""A checkpoint of 100 GB and more converts in a few GiB: Jamba-1.5-Large both ways, at its real sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from archc import hub
from tests.models.packages import Package, Workshop

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc and ru_maxrss in KiB"),
]
CONFIG = json.loads((Path(__file__).parent / "jamba_1_5_large.json").read_text())
TOTAL = 398_555_145_696  # parameters, as `facts/counts.json` has them

# Files of theirs with every tensor of the package, nothing but headers and holes.
THEIRS = """
import json, resource, struct, sys, time
from pathlib import Path
import torch
from PACKAGE import checkpoint, hf, hf_names, hub, shards

GiB = 1 << 30
folder = Path(sys.argv[1])

def with_holes(path, infos):
    header, end = {}, 0
    for name, info in infos.items():
        begin, end = end, end + info.n_bytes
        header[name] = {"dtype": "BF16", "shape": list(info.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)

model = checkpoint.empty(torch.device("meta"), torch.float32)
ours = {name: shards.Info(torch.bfloat16, tuple(t.shape)) for name, t in checkpoint.stored(model)[0].items()}
family = hub.FAMILIES[0]
pairs = hf_names.pairs(ours, family.rows, family.uses)
theirs = {name: shards.Info(torch.bfloat16, pair.their_shape) for pair in pairs for name in pair.theirs}
largest = max(info.n_bytes for info in theirs.values())
places = {name: f"model-{i % 160:05d}.safetensors" for i, name in enumerate(theirs)}
(folder / "theirs").mkdir()
for file in set(places.values()):
    with_holes(folder / "theirs" / file, {name: info for name, info in theirs.items() if places[name] == file})
(folder / "theirs" / hf.INDEX).write_text(json.dumps({"weight_map": places}))
(folder / "theirs" / "config.json").write_text(json.dumps(dict(family.config)))
"""

# Memory is given, so that the address space shows what is held, and nothing is read, written or hashed.
WITHOUT_CONTENT = """
def read(self, name, index=None):
    info = self.info(name)
    if index is None:
        return torch.empty(info.shape, dtype=info.dtype)
    rows = (index.stop - index.start,) if isinstance(index, slice) else ()
    return torch.empty((*rows, *info.shape[1:]), dtype=info.dtype)

def write(path, sources):
    for name, source in sources.items():
        assert sum(piece.contiguous().nbytes for piece in source.pieces()) == source.info.n_bytes, name
    with_holes(path, {name: source.info for name, source in sources.items()})
    return shards.Written("0" * 64, sum(source.info.n_bytes for source in sources.values()), tuple(sources))

shards.Shards.read, shards._write_file = read, write
checkpoint.verify = lambda path, files, *patterns: [path / name for name in files if name.endswith("safetensors")]
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + largest + GiB, resource.RLIM_INFINITY))
try:
    torch.empty(largest + GiB + GiB // 8, dtype=torch.uint8)
except RuntimeError:
    pass
else:
    raise AssertionError("the limit limits nothing")
hf.import_hf(folder / "theirs", folder / "run")
hf.export_hf(folder / "run", folder / "back")
back = shards.Shards(sorted((folder / "back").glob("*.safetensors")))
assert {name: back.info(name) for name in back.names()} == theirs
print(len(theirs), sum(info.n_bytes for info in theirs.values()), largest)
"""

WITH_CONTENT = """
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = hf.import_hf(folder / "theirs", folder / "run")
held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
checkpoint.verify(path, checkpoint.read_manifest(path).files, "*")
print(sum(info.n_bytes for info in theirs.values()), largest, held)
"""


def converted(package: Package, script: str, folder: Path) -> list[int]:
    """The numbers that a conversion in a process of its own prints."""
    code = (THEIRS + script).replace("PACKAGE", package.name)
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=package.folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [int(number) for number in done.stdout.split()]


def test_jamba_1_5_large_in_one_tensor_and_a_gibibyte(workshop: Workshop, tmp_path: Path) -> None:
    """All 800 GB of it, both ways, in an address space that has no room for more."""
    n_tensors, n_bytes, largest = converted(workshop(hub.spec_text(CONFIG, "large")), WITHOUT_CONTENT, tmp_path)
    assert n_bytes == 2 * TOTAL
    assert n_tensors == 2 + 72 * 2 + 1 + 9 * 4 + 63 * 12 + 36 * 3 + 36 * (1 + 16 * 3)
    assert largest == 2 * 65536 * 8192


def test_a_layer_with_its_content(workshop: Workshop, tmp_path: Path) -> None:
    """A layer as wide as its, read, written and hashed: the resident set, and the manifest of what was written."""
    change = {"num_hidden_layers": 1, "attn_layer_period": 1, "attn_layer_offset": 0, "num_experts": 1}
    package = workshop(hub.spec_text(CONFIG | change, "wide"))
    n_bytes, largest, held = converted(package, WITH_CONTENT, tmp_path)
    assert n_bytes > 3 * largest
    assert held < largest + (1 << 30)
