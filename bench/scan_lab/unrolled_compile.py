# ruff: noqa: E402, E501 (an experiment, kept as it ran)
"""Compile a variant for sm_90 without a GPU: registers, spills, instruction mix.  unrolled_compile.py fwd|bwd maxnreg key=value..."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import hashlib
import importlib.util

import unrolled


def load(src, name="k"):
    f = Path(tempfile.gettempdir(), f"gen_{hashlib.sha256(src.encode()).hexdigest()[:12]}.py")
    f.write_text(src)
    sp = importlib.util.spec_from_file_location(f.stem, f)
    m = importlib.util.module_from_spec(sp)
    sp.loader.exec_module(m)
    return getattr(m, name)


W2 = {1: {1: "*bf16", 2: "*i32", 4: "*i64"}}[1]


def sig(fn, kind, o):
    wt = W2[o.get("CPL", 2)] if o.get("elt", 2) == 2 else {1: "*fp32", 2: "*i64", 4: "*i64"}[o.get("CPL", 2)]
    s, const = {}, {}
    D = 8192
    cpl = o.get("CPL", 2)
    for i, a in enumerate(fn.arg_names):
        if a in ("SU", "SD", "SZ", "SO", "SG"):
            s[a] = "constexpr"
            const[(i,)] = D // cpl
        elif a in ("u_ptr", "dt_ptr", "z_ptr", "g_ptr", "o_ptr", "du_ptr", "ddt_ptr", "dz_ptr"):
            s[a] = wt
        elif a in ("B_ptr", "C_ptr"):
            s[a] = "*i64"
        elif a == "pos_ptr":
            s[a] = "*i32"
        elif a.endswith("_ptr"):
            s[a] = "*fp32"
        else:
            s[a] = "i32"
    attrs = {(i,): [["tt.divisibility", 16]] for i, a in enumerate(fn.arg_names) if s[a] != "constexpr"}
    return s, const, attrs


def mix(cubin):
    with tempfile.NamedTemporaryFile(suffix=".cubin", delete=False) as f:
        f.write(cubin)
    b = Path(triton.__file__).parent / "backends/nvidia/bin"
    sass = subprocess.run([str(b / "nvdisasm"), "-c", f.name], capture_output=True, text=True).stdout
    res = subprocess.run([str(b / "cuobjdump"), "-res-usage", f.name], capture_output=True, text=True).stdout
    os.unlink(f.name)
    return sass, res


def loops(sass):
    """instruction mix of each innermost backward branch body"""
    ins, lab = [], {}
    for ln in sass.splitlines():
        m = re.match(r"\s*(\.L_x_\d+):", ln)
        if m:
            lab[m[1]] = len(ins)
        m = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", ln)
        if m:
            ins.append(m[1])
    out = []
    for i, t in enumerate(ins):
        m = re.search(r"BRA.*`\((\.L_x_\d+)\)", t)
        if m and lab.get(m[1], 1 << 30) < i:
            out.append((lab[m[1]], i))
    from collections import Counter

    res = []
    for a, b in out:
        c = Counter()
        for t in ins[a : b + 1]:
            t = re.sub(r"^@!?U?P\w+\s+", "", t)
            c[t.split()[0].split(".")[0]] += 1
        res.append((b - a + 1, c))
    return len(ins), res


def comp(kind, o, maxnreg, show=True):
    t = time.time()
    fn = load(unrolled.kernel("k", kind, **o))
    s, const, attrs = sig(fn, kind, o)
    opt = {"num_warps": o.get("W", 1)}
    if maxnreg:
        opt["maxnreg"] = maxnreg
    k = triton.compile(
        (GluonASTSource if o.get("dialect") == "gl" else ASTSource)(fn=fn, signature=s, constexprs=const, attrs=attrs),
        target=GPUTarget("cuda", 90, 32),
        options=opt,
    )
    sass, res = mix(k.asm["cubin"])
    st = re.search(r"REG:(\d+) STACK:(\d+).*?SHARED:(\d+)", res)
    n, lp = loops(sass)
    sp = len(re.findall(r"\b(STL|LDL)", sass))
    print(
        f"{kind} {o} max {maxnreg}: regs {st[1]} stack {st[2]} smem {k.metadata.shared} spill-instr {sp} instrs {n} {time.time() - t:.1f}s [{triton.__version__}]",
        flush=True,
    )
    if show:
        for ln, c in lp:
            print("   loop", ln, dict(c.most_common(26)))
    return k, sass


if __name__ == "__main__":
    kind, mx = sys.argv[1], int(sys.argv[2])
    o = {}
    for a in sys.argv[3:]:
        k, v = a.split("=")
        o[k] = int(v) if v.lstrip("-").isdigit() else {"True": True, "False": False}.get(v, v)
    k, sass = comp(kind, o, mx)
    Path("last.sass").write_text(sass)
