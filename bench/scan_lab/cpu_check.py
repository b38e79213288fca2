import os
import sys
import time

os.environ["TRITON_INTERPRET"] = "1"
import torch

torch.set_num_threads(1)
from scanlib import *

cases = {
    "w16": (dict(CPL=2), dict(CPL=2), {}),
    "w16 X": (dict(CPL=2, X="mma"), dict(CPL=2, X="mma", pfraw=True, pfx=True), dict(L=43)),
    "w32 X": (dict(CPL=4, X="mma"), dict(CPL=4, X="mma"), dict(L=21, positions=True, state=True)),
    "w16 shf": (dict(CPL=2, Y="shf"), dict(CPL=2, Y="shf", R="shf", BC="shf"), {}),
    "w16 loop": (dict(CPL=2), dict(CPL=2, loop=True), dict(L=43)),
    "w8 loop": (dict(CPL=1), dict(CPL=1, loop=True, S=2, W=2, qd=True), dict(L=43, state=True, positions=True)),
    "w32": (dict(CPL=4), dict(CPL=4, S=4, W=2), dict(L=37, wide=True)),
    "w8 s8": (dict(CPL=1), dict(CPL=1, S=8, keepa=True), dict(positions=True)),
    "w16 pos state": (
        dict(CPL=2, T=16),
        dict(CPL=2, T=16, S=8, keepa=False, W=4, out="part"),
        dict(positions=True, state=True, L=41),
    ),
    "w16 shf W4": (
        dict(CPL=2, W=2, precise=True),
        dict(CPL=2, W=4, Y="shf", R="shf", BC="shf", precise=True, out="part", S=8),
        dict(state=True, L=40),
    ),
    "w16 bf16": (dict(CPL=2), dict(CPL=2), dict(dtype=torch.bfloat16)),
    "w32 bf16": (dict(CPL=4), dict(CPL=4), dict(dtype=torch.bfloat16)),
    "L1": (dict(CPL=2), dict(CPL=2), dict(L=1)),
    "N64": (dict(CPL=1), dict(CPL=1, S=2), dict(N=64, L=19, D=16)),
}
only = sys.argv[1:]
for k, (f, b, kw) in cases.items():
    if only and k not in only:
        continue
    t = time.time()
    if "comp" not in f:
        f["comp"] = False
        b["comp"] = False
    r = check(Scan(f, b), **{**dict(bt=2, L=70, D=64), **kw})
    print(f"{k:14s}", {a: f"{v:.1e}" for a, v in r.items()}, f"{time.time() - t:.0f}s", flush=True)
for nc in (32, 64):
    r = check(Scan(dict(CPL=2, comp=False), dict(CPL=2, comp=False), LC=nc), L=85, bt=2, D=32, positions=True)
    print("chunk", nc, {a: f"{v:.1e}" for a, v in r.items()}, flush=True)
