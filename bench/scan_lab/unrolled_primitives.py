# ruff: noqa: E501 (an experiment, kept as it ran)
"""Lane primitives of the scan programs: inline-asm scalars with portable twins.

A lane program holds 1-D tensors of 32*W elements on W warps: element i is thread i, so one asm block per element is one
instruction per thread, warp collectives (shfl, mma) included.  Under TRITON_INTERPRET=1 the twins define the meaning."""

import os

import triton
import triton.language as tl

if os.environ.get("TRITON_INTERPRET") == "1":

    @triton.jit
    def ex2(x):
        return tl.exp2(x)

    @triton.jit
    def ex2v(x):
        return tl.exp2(x)

    @triton.jit
    def lg2(x):
        return tl.log2(x)

    @triton.jit
    def rcp(x):
        return 1.0 / x

    @triton.jit
    def quad(x, p: tl.constexpr):
        i = tl.arange(0, x.shape[0])
        return tl.gather(x, (i & -4) + p, 0)

    @triton.jit
    def quadd(x, p):
        """quad with a source known at run time; never merged with an equal one: the value need not stay live"""
        i = tl.arange(0, x.shape[0])
        return tl.gather(x, (i & -4) + p, 0)

    @triton.jit
    def bfly(x, m: tl.constexpr):
        i = tl.arange(0, x.shape[0])
        return tl.gather(x, i ^ m, 0)

    @triton.jit
    def _mm(a, b):
        """a, b: (32W,) lane values at (row, k) and (col, k); the (row, 2k), (row, 2k+1) halves of a @ b^T"""
        W: tl.constexpr = a.shape[0] // 32
        A = tl.reshape(a, (W, 8, 1, 4))
        B = tl.reshape(b, (W, 1, 8, 4))
        s = tl.sum(A * B, axis=3)  # (W, row, col)
        return tl.split(tl.reshape(s, (W, 8, 4, 2)))

    @triton.jit
    def mma(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        W: tl.constexpr = a0.shape[0] // 32
        p0, p1 = _mm(a0, b0)
        q0, q1 = _mm(a2, b1)
        r0, r1 = _mm(a1, b0)
        s0, s1 = _mm(a3, b1)
        return (
            c0 + tl.reshape(p0 + q0, (32 * W,)),
            c1 + tl.reshape(p1 + q1, (32 * W,)),
            c2 + tl.reshape(r0 + s0, (32 * W,)),
            c3 + tl.reshape(r1 + s1, (32 * W,)),
        )

    @triton.jit
    def pack2(lo, hi):
        """two fp32 to one word of two bf16, round to nearest even"""
        a = lo.to(tl.int32, bitcast=True)
        b = hi.to(tl.int32, bitcast=True)
        a = (a + 0x7FFF + ((a >> 16) & 1)) >> 16
        b = (b + 0x7FFF + ((b >> 16) & 1)) & -65536
        return (a & 0xFFFF) | b

else:

    @triton.jit
    def ex2(x):
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

    @triton.jit
    def ex2v(x):
        """ex2 that LLVM may not merge with an earlier equal one: a recomputation that stays one"""
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1
        )

    @triton.jit
    def lg2(x):
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

    @triton.jit
    def rcp(x):
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )

    @triton.jit
    def quad(x, p: tl.constexpr):
        if p == 0:
            return tl.inline_asm_elementwise(
                "shfl.sync.idx.b32 $0, $1, 0, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        elif p == 1:
            return tl.inline_asm_elementwise(
                "shfl.sync.idx.b32 $0, $1, 1, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        elif p == 2:
            return tl.inline_asm_elementwise(
                "shfl.sync.idx.b32 $0, $1, 2, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        else:
            return tl.inline_asm_elementwise(
                "shfl.sync.idx.b32 $0, $1, 3, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )

    @triton.jit
    def quadd(x, p):
        """quad with a source known at run time; never merged with an equal one: the value need not stay live"""
        return tl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, $2, 0x1c1f, 0xffffffff;",
            "=f,f,r",
            [x, p],
            dtype=tl.float32,
            is_pure=False,
            pack=1,
        )

    @triton.jit
    def bfly(x, m: tl.constexpr):
        if m == 1:
            return tl.inline_asm_elementwise(
                "shfl.sync.bfly.b32 $0, $1, 1, 0x1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        elif m == 2:
            return tl.inline_asm_elementwise(
                "shfl.sync.bfly.b32 $0, $1, 2, 0x1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        elif m == 4:
            return tl.inline_asm_elementwise(
                "shfl.sync.bfly.b32 $0, $1, 4, 0x1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        elif m == 8:
            return tl.inline_asm_elementwise(
                "shfl.sync.bfly.b32 $0, $1, 8, 0x1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        else:
            return tl.inline_asm_elementwise(
                "shfl.sync.bfly.b32 $0, $1, 16, 0x1f, 0xffffffff;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )

    @triton.jit
    def mma(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
        """m16n8k8 tf32 on the warp's fragments; fp32 bits go in as they are (the unit drops the low 13)"""
        return tl.inline_asm_elementwise(
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
            "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
            [
                a0.to(tl.int32, bitcast=True),
                a1.to(tl.int32, bitcast=True),
                a2.to(tl.int32, bitcast=True),
                a3.to(tl.int32, bitcast=True),
                b0.to(tl.int32, bitcast=True),
                b1.to(tl.int32, bitcast=True),
                c0,
                c1,
                c2,
                c3,
            ],
            dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )

    @triton.jit
    def pack2(lo, hi):
        return tl.inline_asm_elementwise(
            "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", [lo, hi], dtype=tl.int32, is_pure=True, pack=1
        )
