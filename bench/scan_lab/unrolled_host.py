# ruff: noqa: E402, E501 (an experiment, kept as it ran)
"""Host side of the lab's scan kernels: variants, loading, launching, references."""

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import torch
import triton
import triton.language as tl
import unrolled

GENDIR = Path(os.environ.get("SCAN_GEN", HERE / "_gen"))
_mods = {}


def load_source(src, name):
    """a module from generated text; the file name carries a hash, so that the Triton cache key is stable"""
    key = hashlib.sha256(src.encode()).hexdigest()[:12]
    if key not in _mods:
        GENDIR.mkdir(exist_ok=True, parents=True)
        f = GENDIR / f"{name}_{key}.py"
        if not f.exists():
            tmp = f.with_suffix(f".{os.getpid()}.tmp")
            tmp.write_text(src)
            tmp.replace(f)
        spec = importlib.util.spec_from_file_location(f"{name}_{key}", f)
        m = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(m)
        _mods[key] = m
    return getattr(_mods[key], name)


def lane(kind, **o):
    o.setdefault("dialect", "tl" if os.environ.get("TRITON_INTERPRET") == "1" else "gl")
    return load_source(unrolled.kernel("k", kind, **o), "k")


@triton.jit
def prep_bc(B_ptr, C_ptr, o_ptr, L, LP, SB, SC, BSB, BSC, N: tl.constexpr, R: tl.constexpr):
    """B, C (strided, any float) to fp32 [2, batch, LP, N], rows from L on zero"""
    pb = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    n = tl.arange(0, N)[None, :]
    o = (pb * LP + t) * N + n
    m = t < L
    b = tl.load(B_ptr + pb * BSB + t * SB + n, mask=m, other=0.0).to(tl.float32)
    c = tl.load(C_ptr + pb * BSC + t * SC + n, mask=m, other=0.0).to(tl.float32)
    tl.store(o_ptr + o, b, mask=t < LP)
    tl.store(o_ptr + tl.num_programs(1) * LP * N + o, c, mask=t < LP)


@triton.jit
def chunk_pass(A_ptr, sd_ptr, s_ptr, h_ptr, NC, NW, CPL: tl.constexpr, NI: tl.constexpr):
    """states of chunks in lane order (zero start) to the state at each chunk's start; s and h may be one buffer"""
    pid = tl.program_id(0)
    pb = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, 32)
    REG: tl.constexpr = CPL * NI
    for c in tl.static_range(CPL):
        ch = pid * 8 * CPL + (lane >> 2) * CPL + c
        for n in tl.static_range(NI):
            A = -tl.exp2(tl.load(A_ptr + ch * NI * 4 + (lane & 3) * 2 + (n // 2) * 8 + n % 2) * 1.4426950408889634)
            h = tl.load(h_ptr + ((pb * (NC + 1) + NC) * NW + pid) * REG * 32 + (c * NI + n) * 32 + lane)
            for q in range(0, NC):
                o = ((pb * NC + q) * NW + pid) * REG * 32 + (c * NI + n) * 32 + lane
                s = tl.load(s_ptr + o)
                tl.store(h_ptr + ((pb * (NC + 1) + q) * NW + pid) * REG * 32 + (c * NI + n) * 32 + lane, h)
                sd = tl.load(sd_ptr + (pb * NC + q) * NW * 8 * CPL + ch)
                h = tl.exp2(A * sd) * h + s


@triton.jit
def reduce_part(p_ptr, o_ptr, n, P, BLOCK: tl.constexpr):
    """sum of P partials of n values, in order"""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    s = tl.zeros((BLOCK,), dtype=tl.float32)
    for q in range(0, P):
        s += tl.load(p_ptr + (q + 0 * i).to(tl.int64) * n + i, mask=i < n, other=0.0)
    tl.store(o_ptr + i, s, mask=i < n)


def words(x, CPL):
    """(batch, L, D) channel-last, perhaps strided: the tensor as words of CPL channels, and its row stride in words"""
    nb = x.element_size() * CPL
    dt = {2: x.dtype, 4: torch.int32 if x.element_size() == 2 else x.dtype, 8: torch.int64, 16: torch.int64}[nb]
    f = x.view(dt) if dt != x.dtype else x
    assert f.stride(2) == 1
    assert x.shape[0] == 1 or f.stride(0) == f.stride(1) * x.shape[1]
    return f, f.stride(1)


class Scan:
    """one variant's forward and backward on tensors u, dt, z (batch, L, D), B, C (batch, L, N), A_log (D, N), Dp, bias (D,)"""

    def __init__(self, f=None, b=None, fopt=None, bopt=None, LC=None):
        self.f, self.b, self.LC = f or {}, b, LC
        self.fopt, self.bopt = fopt or {}, bopt or {}
        self.kf = self.kb = None

    def prep(self, B, C):
        bt, L, N = B.shape
        LP = (L + 7) // 8 * 8 + 8
        bc = torch.empty(2, bt, LP, N, dtype=torch.float32, device=B.device)
        prep_bc[(triton.cdiv(LP, 64), bt)](
            B, C, bc, L, LP, B.stride(1), C.stride(1), B.stride(0), C.stride(0), N=N, R=64
        )
        return bc.view(torch.int64), LP

    def forward(self, u, dt, z, B, C, A_log, Dp, bias, pos=None, h0=None, poison=False):
        o = dict(self.f)
        CPL, W, T = o.get("CPL", 2), o.get("W", 1), o.get("T", 32)
        bt, L, D = u.shape
        N = A_log.shape[1]
        o.update(N=N, elt=u.element_size(), pos=pos is not None, init=h0 is not None)
        wu, su = words(u, CPL)
        wd, sd = words(dt, CPL)
        wz, sz = words(z, CPL)
        out = torch.empty(bt, L, D, dtype=u.dtype, device=u.device)
        wo, so = words(out, CPL)
        NW = D // (8 * CPL)
        nb = triton.cdiv(L, T)
        save = o.get("save", True)
        s = torch.empty(bt, nb, NW, N * CPL // 4, 32, dtype=torch.float32, device=u.device) if save else bias
        hT = torch.empty(bt, D, N, dtype=torch.float32, device=u.device) if o.get("final") else bias
        if poison:
            for x in (out, s, hT):
                if x is not bias:
                    x.fill_(float("nan"))
        bc, LP = self.prep(B, C)
        kw = dict(num_warps=W, **self.fopt)
        args = (
            wu,
            wd,
            wz,
            bc[0],
            bc[1],
            bc[0].view(torch.float32),
            A_log,
            Dp,
            bias,
            bias if pos is None else pos,
            wo,
            s,
        )
        st = {"SU": su, "SD": sd, "SZ": sz, "SO": so}
        g = (D // (8 * CPL * W), bt)
        if self.LC is None:
            self.kf = lane("fwd", **o)[g](*args, bias if h0 is None else h0, hT, bias, L, LP, NW, 0, **st, **kw)
        else:
            LC = self.LC
            nc = triton.cdiv(L, LC)
            sdt = torch.empty(bt, nc, D, dtype=torch.float32, device=u.device)
            sc = torch.empty(bt, nc, NW, N * CPL // 4, 32, dtype=torch.float32, device=u.device)
            hc = torch.empty(bt, nc + 1, NW, N * CPL // 4, 32, dtype=torch.float32, device=u.device)
            if h0 is None:
                hc[:, nc].zero_()
            else:  # (bt, D, N) to lane order
                hc[:, nc] = (
                    h0.view(bt, NW, 8, CPL, N // 8, 4, 2).permute(0, 1, 3, 4, 6, 2, 5).reshape(bt, NW, N * CPL // 4, 32)
                )
            so_ = {**o, "save": False, "final": False, "chunk": "state"}
            lane("fwd", **so_)[(*g, nc)](*args, sc, hT, sdt, L, LP, NW, LC, **st, **kw)
            chunk_pass[(NW, bt)](A_log, sdt, sc, hc, nc, NW, CPL=CPL, NI=N // 4, num_warps=1)
            hcc = hc[:, :nc].contiguous() if bt > 1 else hc[:, :nc]
            self.kf = lane("fwd", **{**o, "chunk": "out"})[(*g, nc)](*args, hcc, hT, sdt, L, LP, NW, LC, **st, **kw)
        return out, s, hT, (bc, LP)

    def backward(self, g, u, dt, z, B, C, A_log, Dp, bias, s, bcl, pos=None, h0=None, ghT=None, poison=False):
        o = dict(self.b)
        CPL, W, T, S = o.get("CPL", 2), o.get("W", 1), o.get("T", 32), o.get("S", 4)
        bt, L, D = u.shape
        N = A_log.shape[1]
        o.update(N=N, elt=u.element_size(), pos=pos is not None, init=h0 is not None, final=ghT is not None)
        (wu, su), (wd, sd), (wz, sz), (wg, sg) = (words(x, CPL) for x in (u, dt, z, g))
        du, ddt, dz = (torch.empty(bt, L, D, dtype=u.dtype, device=u.device) for _ in range(3))
        NW = D // (8 * CPL)
        nx = T // S
        f32 = {"dtype": torch.float32, "device": u.device}
        scratch = torch.empty(bt, NW, nx, N * CPL // 4, 32, **f32)
        dA, dD, db = torch.empty(bt, D, N, **f32), torch.empty(bt, D, **f32), torch.empty(bt, D, **f32)
        gh0 = torch.empty(bt, D, N, **f32) if h0 is not None else bias
        out = o.get("out", "atomic")
        P = D // (8 * CPL * W)
        dBC = torch.zeros(2, bt, L, N, **f32) if out == "atomic" else torch.empty(P, 2, bt, L, N, **f32)
        if poison:
            for x in (
                (du, ddt, dz, scratch, dA, dD, db)
                + ((gh0,) if h0 is not None else ())
                + (() if out == "atomic" else (dBC,))
            ):
                x.fill_(float("nan"))
        bc, LP = bcl
        st = {"SU": su, "SD": sd, "SZ": sz, "SG": sg, "SO": words(du, CPL)[1]}
        self.kb = lane("bwd", **o)[(P, bt)](
            wu,
            wd,
            wz,
            bc[0],
            bc[1],
            bc[0].view(torch.float32),
            A_log,
            Dp,
            bias,
            bias if pos is None else pos,
            wg,
            s,
            scratch,
            bias if ghT is None else ghT,
            gh0,
            words(du, CPL)[0],
            words(ddt, CPL)[0],
            words(dz, CPL)[0],
            dBC,
            dA,
            dD,
            db,
            L,
            LP,
            NW,
            bt * L * N,
            0,
            **st,
            num_warps=W,
            **self.bopt,
        )
        if out == "part":
            full = torch.empty(2, bt, L, N, **f32)
            n = full.numel()
            reduce_part[(triton.cdiv(n, 256),)](dBC, full, n, P, BLOCK=256, num_warps=4)
            dBC = full
        return {
            "du": du,
            "ddt": ddt,
            "dz": dz,
            "dB": dBC[0].to(B.dtype),
            "dC": dBC[1].to(C.dtype),
            "dA": dA.sum(0),
            "dD": dD.sum(0),
            "dbias": db.sum(0),
            "gh0": gh0,
        }


def reference(u, dt, z, B, C, A_log, Dp, bias, pos=None, h0=None, dtype=torch.float64):
    """the recurrence, step by step; differentiable"""
    u, dt, z, B, C, A_log, Dp, bias = (x.to(dtype) for x in (u, dt, z, B, C, A_log, Dp, bias))
    bt, L, D = u.shape
    d = torch.nn.functional.softplus(dt + bias)
    A = -torch.exp(A_log)
    h = torch.zeros(bt, D, A.shape[1], dtype=dtype, device=u.device) if h0 is None else h0.to(dtype)
    ys = []
    for t in range(L):
        a = torch.exp(d[:, t, :, None] * A)
        if pos is not None:
            a = a * (pos[:, t] != 0).to(dtype)[:, None, None]
        h = a * h + (d[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        ys.append((h * C[:, t, None, :]).sum(-1))
    y = torch.stack(ys, 1) + Dp * u
    return y * torch.nn.functional.silu(z), h


def inputs(bt, L, D, N, dtype, device, seed, wide=False, positions=False):
    g = (
        torch.Generator(device="cpu").manual_seed(seed)
        if device == "cpu"
        else torch.Generator(device=device).manual_seed(seed)
    )

    def R(*s):
        return torch.randn(*s, generator=g, device=device)

    if wide:  # u and z as halves of one projection
        xz = R(bt, L, 2 * D).to(dtype)
        u, z = xz[..., :D], xz[..., D:]
    else:
        u, z = R(bt, L, D).to(dtype), R(bt, L, D).to(dtype)
    dt = (R(bt, L, D) * 0.8).to(dtype)
    bcx = (R(bt, L, 2 * N + 8)).to(dtype)
    B, C = bcx[..., 8 : 8 + N], bcx[..., 8 + N :]
    A_log = torch.log(torch.arange(1, N + 1, device=device, dtype=torch.float32)).repeat(D, 1) + 0.1 * R(D, N)
    Dp, bias = R(D), R(D) * 0.5 - 3.0
    pos = None
    if positions:
        cut = torch.rand(bt, L, generator=g, device=device) < 0.06
        cut[:, 0] = True
        idx = torch.arange(L, device=device).expand(bt, L)
        start = torch.where(cut, idx, torch.zeros_like(idx)).cummax(1).values
        pos = (idx - start).to(torch.int32)
    return u, dt, z, B, C, A_log.contiguous(), Dp, bias, pos


def err(a, b):
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item() if torch.isfinite(a).all() else float("nan")


def check(
    sc, bt=2, L=70, D=64, N=16, dtype=torch.float32, device="cpu", seed=0, wide=False, positions=False, state=False
):
    """relative errors of every output against fp64"""
    u, dt, z, B, C, A_log, Dp, bias, pos = inputs(bt, L, D, N, dtype, device, seed, wide, positions)
    h0 = torch.randn(bt, D, N, device=device) if state else None
    leaf = [x.detach().double().requires_grad_() for x in (u, dt, z, B, C, A_log, Dp, bias)]
    hl = h0.double().requires_grad_() if state else None
    ref, href = reference(*leaf, pos=pos, h0=hl)
    g = torch.randn(bt, L, D, device=device).to(dtype)
    ghT = torch.randn(bt, D, N, device=device) if state else None
    if state:
        sc.f["final"] = True
    out, s, hT, bcl = sc.forward(u, dt, z, B, C, A_log, Dp, bias, pos, h0, poison=True)
    r = {"out": err(out, ref)}
    if state:
        r["hT"] = err(hT, href)
    if sc.b is not None:
        loss = (ref * g.double()).sum() + ((href * ghT.double()).sum() if state else 0.0)
        gr = torch.autograd.grad(loss, leaf + ([hl] if state else []))
        res = sc.backward(g, u, dt, z, B, C, A_log, Dp, bias, s, bcl, pos, h0, ghT, poison=True)
        for k, v in zip(("du", "ddt", "dz", "dB", "dC", "dA", "dD", "dbias", "gh0"), gr, strict=False):
            r[k] = err(res[k], v)
    return r


@triton.jit
def tile2d(
    u_ptr,
    dt_ptr,
    z_ptr,
    b_ptr,
    c_ptr,
    A_ptr,
    D_ptr,
    bias_ptr,
    o_ptr,
    L,
    LP,
    D: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
):
    """the baseline: a plain [N, BD] tile, one step at a time, layouts left to the compiler"""
    pb = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    n = tl.arange(0, N)
    A = -tl.exp(tl.load(A_ptr + d[None, :] * N + n[:, None])) * 1.4426950408889634
    Dv = tl.load(D_ptr + d)
    bias = tl.load(bias_ptr + d)
    h = tl.zeros((N, BD), dtype=tl.float32)
    for t in range(0, L):
        o = (pb * L + t) * D + d
        u = tl.load(u_ptr + o).to(tl.float32)
        x = tl.load(dt_ptr + o).to(tl.float32) + bias
        z = tl.load(z_ptr + o).to(tl.float32)
        b = tl.load(b_ptr + (pb * LP + t) * N + n)
        c = tl.load(c_ptr + (pb * LP + t) * N + n)
        dt = tl.where(x > 20.0, x, tl.log2(1.0 + tl.exp2(x * 1.4426950408889634)) * 0.6931471805599453)
        h = tl.exp2(A * dt[None, :]) * h + b[:, None] * (dt * u)[None, :]
        y = tl.sum(h * c[:, None], axis=0) + Dv * u
        tl.store(o_ptr + o, (y * z / (1.0 + tl.exp2(-z * 1.4426950408889634))).to(o_ptr.dtype.element_ty))


class Tile(Scan):
    def __init__(self, BD, warps):
        super().__init__({})
        self.BD, self.warps = BD, warps

    def forward(self, u, dt, z, B, C, A_log, Dp, bias, pos=None, h0=None, poison=False):
        bt, L, D = u.shape
        out = torch.empty(bt, L, D, dtype=u.dtype, device=u.device)
        if poison:
            out.fill_(float("nan"))
        bc, LP = self.prep(B, C)
        f = bc.view(torch.float32)
        self.kf = tile2d[(D // self.BD, bt)](
            u, dt, z, f[0], f[1], A_log, Dp, bias, out, L, LP, D=D, N=A_log.shape[1], BD=self.BD, num_warps=self.warps
        )
        return out, None, None, (bc, LP)
