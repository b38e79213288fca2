"""The lane primitives in Gluon (the asm half of unrolled_primitives.py)."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def ex2(x):
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def ex2v(x):
    """ex2 that LLVM may not merge with an earlier equal one: a recomputation that stays one"""
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1)


@gluon.jit
def lg2(x):
    return gl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def rcp(x):
    return gl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def quad(x, p: gl.constexpr):
    if p == 0:
        return gl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, 0, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )
    elif p == 1:
        return gl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, 1, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )
    elif p == 2:
        return gl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, 2, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )
    else:
        return gl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, 3, 0x1c1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )


@gluon.jit
def quadd(x, p):
    """quad with a source known at run time; never merged with an equal one: the value need not stay live"""
    return gl.inline_asm_elementwise(
        "shfl.sync.idx.b32 $0, $1, $2, 0x1c1f, 0xffffffff;", "=f,f,r", [x, p], dtype=gl.float32, is_pure=False, pack=1
    )


@gluon.jit
def bfly(x, m: gl.constexpr):
    if m == 1:
        return gl.inline_asm_elementwise(
            "shfl.sync.bfly.b32 $0, $1, 1, 0x1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )
    elif m == 2:
        return gl.inline_asm_elementwise(
            "shfl.sync.bfly.b32 $0, $1, 2, 0x1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )
    elif m == 4:
        return gl.inline_asm_elementwise(
            "shfl.sync.bfly.b32 $0, $1, 4, 0x1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )
    elif m == 8:
        return gl.inline_asm_elementwise(
            "shfl.sync.bfly.b32 $0, $1, 8, 0x1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )
    else:
        return gl.inline_asm_elementwise(
            "shfl.sync.bfly.b32 $0, $1, 16, 0x1f, 0xffffffff;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1
        )


@gluon.jit
def mma(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """m16n8k8 tf32 on the warp's fragments; fp32 bits go in as they are (the unit drops the low 13)"""
    return gl.inline_asm_elementwise(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
        "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
        [
            a0.to(gl.int32, bitcast=True),
            a1.to(gl.int32, bitcast=True),
            a2.to(gl.int32, bitcast=True),
            a3.to(gl.int32, bitcast=True),
            b0.to(gl.int32, bitcast=True),
            b1.to(gl.int32, bitcast=True),
            c0,
            c1,
            c2,
            c3,
        ],
        dtype=(gl.float32, gl.float32, gl.float32, gl.float32),
        is_pure=True,
        pack=1,
    )


@gluon.jit
def pack2(lo, hi):
    return gl.inline_asm_elementwise(
        "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", [lo, hi], dtype=gl.int32, is_pure=True, pack=1
    )
