# ruff: noqa: B023, E402, E501, SIM115 (an experiment, kept as it ran)
"""On the GPU: compile and check every variant in parallel worker processes, then time them in order of importance.
unrolled_check.py [seconds]; full results to $OUT/scan.json and $OUT/scan.log, the table last on stdout."""

import json
import os
import sys
import tempfile
import time
import traceback

T0 = time.time()
BUDGET = float(sys.argv[1]) if len(sys.argv) > 1 else 280.0
OUT = os.environ.get("OUT", os.path.join(tempfile.gettempdir(), "scan_out"))
os.makedirs(OUT, exist_ok=True)
os.environ.setdefault("SCAN_GEN", os.path.join(tempfile.gettempdir(), "scan_gen"))
os.environ.setdefault("OMP_NUM_THREADS", "2")
import multiprocessing as mp

DRY = os.environ.get("DRY") == "1"  # the whole flow on the CPU interpreter, tiny
if DRY:
    os.environ["TRITON_INTERPRET"] = "1"
CUDA_MS = {
    "B4D8192": (2.290, 11.37),
    "B4D5120": (1.443, 7.17),
    "B1D8192": (0.611, 3.10),
    "B8L2048": (2.304, 11.30),
}  # mamba_ssm's CUDA kernels
SHAPES = {
    "B4D8192": (4, 4096, 8192),
    "B4D5120": (4, 4096, 5120),
    "B1D8192": (1, 4096, 8192),
    "B8L2048": (8, 2048, 8192),
}

q = {"qd": True, "loop": True}


def R(n):
    return {"maxnreg": n} if n else {}


# name: (options, launch options, L-chunk)
FWD = {
    "w16 r128": ({"CPL": 2}, R(128), None),
    "w16 r0": ({"CPL": 2}, R(0), None),
    "w32 r168": ({"CPL": 4}, R(168), None),
    "w8 r128": ({"CPL": 1}, R(128), None),
    "w16 Yshf r128": ({"CPL": 2, "Y": "shf"}, R(128), None),
    "w16 W4 r128": ({"CPL": 2, "W": 4}, R(128), None),
    "w16 Xmma r128": ({"CPL": 2, "X": "mma"}, R(128), None),
    "w32 r255": ({"CPL": 4}, R(255), None),
    "w32 Yshf r168": ({"CPL": 4, "Y": "shf"}, R(168), None),
    "w8 W4 r0": ({"CPL": 1, "W": 4}, R(0), None),
    "w16 precise": ({"CPL": 2, "precise": True}, R(128), None),
    "w16 T64": ({"CPL": 2, "T": 64}, R(128), None),
    "w16 nosave": ({"CPL": 2, "save": False}, R(128), None),
    "w16 nocomp": ({"CPL": 2, "comp": False}, R(128), None),
    "w16 W2 r112": ({"CPL": 2, "W": 2}, R(112), None),
    "w16 LC1024": ({"CPL": 2}, R(128), 1024),
    "w16 LC2048": ({"CPL": 2}, R(128), 2048),
    "tile BD64 w4": ("tile", 64, 4),
    "tile BD32 w1": ("tile", 32, 1),
}
BWD = {
    "w16 smem r0": (dict(CPL=2, BC="smem", **q), R(0)),
    "w16 smem r168": (dict(CPL=2, BC="smem", **q), R(168)),
    "w16 mma r0": (dict(CPL=2, **q), R(0)),
    "w16 mma r168": (dict(CPL=2, **q), R(168)),
    "w16 shf r0": ({"CPL": 2, "qd": True, "Y": "shf", "R": "shf", "BC": "shf"}, R(0)),
    "w16 S2 smem r128": (dict(CPL=2, S=2, BC="smem", **q), R(128)),
    "w16 rec smem r128": (dict(CPL=2, keepa=False, BC="smem", **q), R(128)),
    "w16 W4 mma part r0": (dict(CPL=2, W=4, out="part", **q), R(0)),
    "w8 mma r0": (dict(CPL=1, **q), R(0)),
    "w8 smem r128": (dict(CPL=1, BC="smem", **q), R(128)),
    "w32 S2 mma r255": (dict(CPL=4, S=2, **q), R(255)),
    "w16 W4 mma r168": (dict(CPL=2, W=4, **q), R(168)),
    "w16 BCshf r168": ({"CPL": 2, "qd": True, "BC": "shf"}, R(168)),
    "w16 W4 smem r0": (dict(CPL=2, W=4, BC="smem", **q), R(0)),
    "w16 T64 smem r168": (dict(CPL=2, T=64, BC="smem", **q), R(168)),
    "w16 S2 shf r168": ({"CPL": 2, "S": 2, "qd": True, "Y": "shf", "R": "shf", "BC": "shf"}, R(168)),
    "w8 W4 mma part r0": (dict(CPL=1, W=4, out="part", **q), R(0)),
}
if DRY:
    FWD = {k: FWD[k] for k in ("w16 r128", "w16 LC1024")}
    BWD = {k: BWD[k] for k in ("w16 mma r0",)}
    SHAPES = {"B4D8192": (1, 16, 64)}


def make(kind, name):
    from unrolled_host import Scan, Tile

    if kind == "fwd":
        o, lo, lc = FWD[name]
        return Tile(lo, lc) if o == "tile" else Scan(dict(o), None, lo, {}, lc)
    o, lo = BWD[name]
    f = {"CPL": o.get("CPL", 2), "T": o.get("T", 32)}
    if name.startswith("w16 shf") or "S2 shf" in name:
        f["Y"] = "shf"
    return Scan(f, dict(o), R(128), lo)


def work(job):
    """compile (two widths) and check one variant; returns a record"""
    kind, name = job
    rec = {"kind": kind, "name": name}
    t = time.time()
    try:
        import torch
        import unrolled_host

        dev = "cpu" if DRY else "cuda"
        dt = torch.float32 if DRY else torch.bfloat16
        sc = make(kind, name)
        if sc.LC:
            sc.LC = 32  # many short chunks in the check
        D = 64 if DRY else 8192
        rec["err"] = unrolled_host.check(sc, bt=2, L=21 if DRY else 77, D=D, dtype=dt, device=dev, seed=1)
        if not DRY:
            k = sc.kf if kind == "fwd" else sc.kb
            rec["regs"], rec["spills"], rec["smem"] = k.n_regs, k.n_spills, k.metadata.shared
            rec["compile_s"] = round(time.time() - t, 1)
            e2 = unrolled_host.check(sc, bt=1, L=200, D=D, dtype=dt, device=dev, seed=2)
            rec["err"] = {
                a: max(v, e2[a]) if v == v and e2[a] == e2[a] else float("nan") for a, v in rec["err"].items()
            }
            # the same inputs again and again: outputs that no atomic touches must not move
            x = unrolled_host.inputs(2, 333, D, 16, dt, dev, 3)
            outs = []
            g = torch.randn(2, 333, D, device=dev).to(dt)
            for _ in range(4):
                o, s, _, bcl = sc.forward(*x[:8], poison=True)
                r = [o]
                if kind == "bwd":
                    b = sc.backward(g, *x[:8], s, bcl, poison=True)
                    r += [
                        b[v]
                        for v in ("du", "ddt", "dz", "dA", "dD", "dbias")
                        + (("dB", "dC") if sc.b.get("out") == "part" else ())
                    ]
                outs.append(r)
            rec["steady"] = all(torch.equal(a, b) for r in outs[1:] for a, b in zip(outs[0], r, strict=False))
            # warm the cache for the other width
            x = unrolled_host.inputs(1, 40, 5120, 16, dt, dev, 4)
            o, s, _, bcl = sc.forward(*x[:8])
            if kind == "bwd":
                sc.backward(torch.randn(1, 40, 5120, device=dev).to(dt), *x[:8], s, bcl)
            torch.cuda.synchronize()
    except Exception as ex:
        rec["fail"] = f"{type(ex).__name__}: {str(ex)[-400:]}"
        rec["trace"] = traceback.format_exc()[-3000:]
    rec["wall"] = round(time.time() - t, 1)
    return rec


def ideal():
    """error of the fp64 result rounded to bf16: what a perfect kernel shows"""
    import torch

    x = torch.randn(1 << 20, dtype=torch.float64)
    return ((x.bfloat16().double() - x).norm() / x.norm()).item()


def main():
    def left():
        return BUDGET - (time.time() - T0)

    log = open(f"{OUT}/scan.log", "w")

    def say(*a):
        print(*a, flush=True)
        print(*a, file=log, flush=True)

    fk, bk = list(FWD), list(BWD)
    jobs = []
    for i in range(max(len(fk), len(bk))):
        jobs += [("bwd", bk[i])] if i < len(bk) else []
        jobs += [("fwd", fk[i])] if i < len(fk) else []
    recs = {}
    ctx = mp.get_context("spawn")
    if DRY:
        for j in jobs:
            r = work(j)
            recs[r["kind"], r["name"]] = r
    else:
        pool = ctx.Pool(int(os.environ.get("SCAN_PROCS", "13")))
        it = pool.imap_unordered(work, jobs)
        stop = BUDGET * 0.55
        while len(recs) < len(jobs) and time.time() - T0 < stop:
            try:
                r = it.next(timeout=max(0.5, stop - (time.time() - T0)))
            except mp.TimeoutError:
                break
            except StopIteration:
                break
            recs[r["kind"], r["name"]] = r
            if "fail" in r:
                say("FAIL", r["kind"], r["name"], r["fail"][:300])
        pool.terminate()
    say(f"checked {len(recs)} of {len(jobs)} in {time.time() - T0:.0f} s")
    import torch
    import triton
    import unrolled_host

    dev = "cpu" if DRY else "cuda"
    dt = torch.float32 if DRY else torch.bfloat16
    if not DRY:
        say(torch.cuda.get_device_name(), torch.__version__, triton.__version__)

    def bench(fn, graph):
        if DRY:
            t = time.time()
            fn()
            return (time.time() - t) * 1e3
        if graph:
            try:
                with torch.cuda.stream(torch.cuda.Stream()):
                    return triton.testing.do_bench_cudagraph(fn, rep=40, return_mode="median")
            except Exception as ex:
                say("no graph", str(ex)[-100:])
        return triton.testing.do_bench(fn, warmup=15, rep=60, return_mode="median")

    times = {}
    for si, (sh, (bt, L, D)) in enumerate(SHAPES.items()):
        x = unrolled_host.inputs(bt, L, D, 16, dt, dev, 10 + si)[:8]
        g = torch.randn(bt, L, D, device=dev).to(dt)
        saved = {}
        for kind, name in jobs:
            if left() < 8:
                break
            r = recs.get((kind, name))
            if r is None or "fail" in r:
                continue
            if D == 5120 and (8 * r_cpl(kind, name)) and D % (8 * r_cpl(kind, name) * r_w(kind, name)):
                continue
            try:
                sc = make(kind, name)
                graph = bt == 1
                if kind == "fwd":
                    ms = bench(lambda: sc.forward(*x), graph)
                else:
                    key = json.dumps(sc.f, sort_keys=True)
                    if key not in saved:
                        saved.clear()
                        saved[key] = sc.forward(*x)
                    o, s, _, bcl = saved[key]
                    ms = bench(lambda: sc.backward(g, *x, s, bcl), graph)
                    if sh == "B4D8192" and not DRY:
                        saved.clear()
                        del o, s, bcl
                        torch.cuda.synchronize()
                        torch.cuda.empty_cache()
                        base = torch.cuda.memory_allocated()
                        torch.cuda.reset_peak_memory_stats()
                        o, s, _, bcl = sc.forward(*x)
                        res = sc.backward(g, *x, s, bcl)
                        torch.cuda.synchronize()
                        r["peak_MiB"] = round((torch.cuda.max_memory_allocated() - base) / 2**20)
                        del o, s, bcl, res
                times[kind, name, sh] = ms
                say(f"{sh} {kind} {name}: {ms:.3f} ms")
            except Exception as ex:
                say("TIMING FAIL", sh, kind, name, type(ex).__name__, str(ex)[-200:])
        saved.clear()
        x = g = None
        if not DRY:
            torch.cuda.empty_cache()
        if left() < 8:
            say("out of time at", sh)
            break
    json.dump(
        {"recs": list(recs.values()), "times": [[*k, v] for k, v in times.items()]},
        open(f"{OUT}/scan.json", "w"),
        indent=1,
        default=str,
    )
    # the table
    say(
        f"\nideal bf16 rounding error {ideal():.2e}; times ms (x mamba_ssm CUDA); floors B4D8192: MUFU fwd 0.650, bwd 1.236"
    )
    fast = {}
    for sh in SHAPES:
        v = [t for (k, n, s), t in times.items() if k == "fwd" and s == sh and n[0] == "w" and "nosave" not in n]
        fast[sh] = min(v) if v else float("nan")
    for kind in ("fwd", "bwd"):
        say(f"--- {kind} | regs spills smem | compile s | " + " | ".join(SHAPES) + " | errors")
        for k, name in jobs:
            r = recs.get((k, name))
            if k != kind or r is None:
                continue
            if "fail" in r:
                say(f"{name:20s} FAIL {r['fail'][:120]}")
                continue
            cells = []
            for sh in SHAPES:
                ms = times.get((k, name, sh))
                if ms is None:
                    cells.append("-")
                    continue
                f, fb = CUDA_MS[sh]
                cells.append(
                    f"{ms:.3f} ({f / ms:.2f}x)" if k == "fwd" else f"{ms:.3f} (fb {fb / (ms + fast[sh]):.2f}x)"
                )
            e = r["err"]
            es = " ".join(f"{a} {v:.1e}" for a, v in e.items())
            say(
                f"{name:20s} {r.get('regs')} {r.get('spills')} {r.get('smem')} | {r.get('compile_s')} | "
                + " | ".join(cells)
                + f" | {es}"
                + ("" if r.get("steady", True) else " MOVES")
                + (f" | peak {r['peak_MiB']}" if "peak_MiB" in r else "")
            )
    say(f"wall {time.time() - T0:.0f} s")


def r_cpl(kind, name):
    o = (FWD if kind == "fwd" else BWD)[name][0]
    return 1 if o == "tile" else o.get("CPL", 2)


def r_w(kind, name):
    o = (FWD if kind == "fwd" else BWD)[name][0]
    return 1 if o == "tile" else o.get("W", 1)


if __name__ == "__main__":
    main()
