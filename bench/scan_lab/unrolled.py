# ruff: noqa: B023, E501 (an experiment, kept as it ran)
"""Generator of the Mamba-1 scan lane programs: forward (whole, chunked) and backward, in a family of shapes.

One warp owns 8*CPL channels and all N states.  lane = 4*r + k: r = 0..7 picks CPL adjacent channels, k = 0..3 picks N/4
adjacent states, so a lane carries CPL*N/4 states in registers.  Time goes in groups of 8 steps.  Work per (channel, step),
softplus, gate, loads, stores, is spread over the quad: lane k owns steps 2k and 2k+1, exactly the layout of an m16n8k8
accumulator whose rows are channels and whose columns are the 8 steps.  Hence
  y[ch, t]  = sum_n h_t[ch, n] C[t, n]     A operand = the states where they lie, B operand = C as each lane loads it (its own
  sum g B   likewise                        step r): only column j is meant at step j, and lane k = j/2 keeps it
  dB[t, n]  = sum_ch g X                   two selection mmas turn 4 partials per lane into [n, r], one with ones sums over r
The decay and the input of step j reach the quad by shfl from the owner.  p = A * log2(1 + 2^x): natural A times dt in log2 units.

A variant is a dict of options; kernel() returns source text.  'shf' in place of 'mma' sums in fp32 with reduce-scatters."""

import re

LOG2E = "1.4426950408889634"
LN2 = "0.6931471805599453"
HEAD = "import triton\nimport triton.language as tl\nfrom unrolled_primitives import bfly, ex2, ex2v, lg2, mma, pack2, quad, quadd, rcp\n\n\n"


class Gen:
    def __init__(
        self,
        name,
        kind,
        CPL=2,
        N=16,
        elt=2,
        W=1,
        T=32,
        S=4,
        Y="mma",
        R="mma",
        BC="mma",
        keepa=True,
        cse=False,
        pos=False,
        init=False,
        final=False,
        save=True,
        precise=False,
        out="atomic",
        chunk=None,
        gate=True,
        vec=False,
        comp=True,
        X="shf",
        pfraw=False,
        pfx=False,
        loop=False,
        qd=False,
    ):
        self.__dict__.update({k: v for k, v in locals().items() if k != "self"})
        assert N % 8 == 0
        assert CPL in (1, 2, 4)
        assert 8 % S == 0
        assert T % 8 == 0
        self.NI, self.WC, self.n = N // 4, 8 * CPL, 32 * W
        self.rows = range(CPL)
        self.lines, self.ind, self.dyn, self.rev = [], "    ", None, False
        # a TF32 operand loses its low 13 bits: mean relative loss of log-uniform mantissas
        self.k1 = "1.00035" if comp else "1.0"
        self.k2 = "1.0007" if comp else "1.0"

    # -- printing -----------------------------------------------------------------------------------------------------
    def w(self, s):
        for ln in s.split("\n"):
            self.lines.append(self.ind + ln if ln else "")

    def block(self, head):
        self.w(head)
        self.ind += "    "

    def end(self):
        self.ind = self.ind[:-4]

    # -- words of CPL adjacent channels ---------------------------------------------------------------------------------
    def nw(self):
        return 2 if (self.elt == 4 and self.CPL == 4) else 1

    def ld(self, v, ptr, mask):
        for q in range(self.nw()):
            s = f"_{q}" if self.nw() > 1 else ""
            self.w(f"{v}{s} = tl.load({ptr}{f' + {q}' if q else ''}, mask={mask}, other=0)")

    def names(self, v):
        return [f"{v}_{q}" for q in range(self.nw())] if self.nw() > 1 else [v]

    def un(self, v, c):
        if self.elt == 4:
            if self.CPL == 1:
                return v
            q = f"{v}_{c // 2}" if self.CPL == 4 else v
            return (
                f"{q}.to(tl.int32).to(tl.float32, bitcast=True)"
                if c % 2 == 0
                else f"({q} >> 32).to(tl.int32).to(tl.float32, bitcast=True)"
            )
        if self.CPL == 1:
            return f"{v}.to(tl.float32)"
        h = v if self.CPL == 2 else (f"{v}.to(tl.int32)" if c < 2 else f"({v} >> 32).to(tl.int32)")
        return (
            f"({h} << 16).to(tl.float32, bitcast=True)"
            if c % 2 == 0
            else f"({h} & -65536).to(tl.float32, bitcast=True)"
        )

    def st(self, ptr, vals, mask):
        def two(a, b):
            return f"(({b}.to(tl.int32, bitcast=True).to(tl.int64) << 32) | ({a}.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF))"

        if self.CPL == 1:
            self.w(f"tl.store({ptr}, {vals[0]}.to(tl.{'float32' if self.elt == 4 else 'bfloat16'}), mask={mask})")
        elif self.elt == 4:
            for q in range(self.CPL // 2):
                self.w(f"tl.store({ptr}{f' + {q}' if q else ''}, {two(vals[2 * q], vals[2 * q + 1])}, mask={mask})")
        elif self.CPL == 2:
            self.w(f"tl.store({ptr}, pack2({vals[0]}, {vals[1]}), mask={mask})")
        else:
            self.w(
                f"tl.store({ptr}, {two(f'pack2({vals[0]}, {vals[1]})', f'pack2({vals[2]}, {vals[3]})')}, mask={mask})"
            )

    def each(self):
        return [(c, e) for c in self.rows for e in (0, 1)]

    # -- prologue -------------------------------------------------------------------------------------------------------
    def prologue(self):
        w, CPL, NI = self.w, self.CPL, self.NI
        w("pid = tl.program_id(0)\npb = tl.program_id(1).to(tl.int64)")
        w(f"i = tl.arange(0, {self.n})\nlane = i & 31\nk = lane & 3\nr = lane >> 2\nwid = pid * {self.W} + (i >> 5)")
        w(f"ch = wid * {self.WC} + r * {CPL}")
        w(f"zero = tl.zeros(({self.n},), dtype=tl.float32)")
        for p in range(4):
            w(f"k{p} = k == {p}")
        for c in self.rows:
            w(f"Dv{c} = tl.load(D_ptr + ch + {c})\nbias{c} = tl.load(bias_ptr + ch + {c}) * {LOG2E}")
            for n in range(NI):
                w(f"A{c}_{n} = -ex2(tl.load(A_ptr + (ch + {c}) * {self.N} + 2 * k + {self.nm(n)}) * {LOG2E})")
        w(f"cw = {'ch' if self.elt == 4 and CPL == 1 else f'(wid * 8 + r) * {self.nw()}'}")
        w(f"rb = pb * LP * {self.N // 2} + k")

    def nm(self, i):
        """lane k's i-th state is 2k + nm(i): pairs, one pair of each 8 states: the columns of an mma accumulator"""
        return 8 * (i // 2) + i % 2

    def states(self):
        return [(c, n) for c in self.rows for n in range(self.NI)]

    def ldb(self, v, ptr, j):
        """NI fp32 of row j for this lane's states, broadcast over r"""
        for q in range(self.NI // 2):
            self.w(f"q = tl.load({ptr} + {j * self.N // 2 + 4 * q})")
            self.w(
                f"{v}{2 * q} = q.to(tl.int32).to(tl.float32, bitcast=True)\n{v}{2 * q + 1} = (q >> 32).to(tl.int32).to(tl.float32, bitcast=True)"
            )

    # -- work per (channel, step) -----------------------------------------------------------------------------------------
    def softplus(self, raw, e, c, tag="", grad=False):
        """D = log2(1 + 2^x) (0 where masked), X = dt * u; grad: sg = sigmoid"""
        w = self.w
        w(f"x = {self.un(f'{raw}d{e}', c)} * {LOG2E} + bias{c}\nE = ex2(x)\nv = lg2(1.0 + E)")
        if self.precise:
            w(f"v = tl.where(E < 0.03125, E * {LOG2E} * (1.0 - E * (0.5 - E * (0.33333333 - 0.25 * E))), v)")
        w(f"v = tl.where(x > 30.0, x, v)\nv = tl.where(m{e}, v, 0.0)")
        w(f"X{tag}{c}_{e} = v * ({self.un(f'{raw}u{e}', c)} * {LN2})")
        if grad:
            w(
                ("dl{c}_{e} = v\n" if self.pos else "").format(c=c, e=e)
                + f"sg{c}_{e} = tl.where(x > 30.0, 1.0, E * rcp(1.0 + E))"
            )
        w(f"D{tag}{c}_{e} = " + (f"tl.where(first{e}, 1e30, v)" if self.pos else "v"))

    def masks(self, t0):
        for e in (0, 1):
            self.w(f"m{e} = {t0} + 2 * k + {e} < L")

    def positions(self, t0):
        if self.pos:
            for e in (0, 1):
                self.w(f"first{e} = tl.load(pos_ptr + pb * L + {t0} + 2 * k + {e}, mask=m{e}, other=1) == 0")

    # -- one step -------------------------------------------------------------------------------------------------------
    def bc(self, dst, src, j):
        for c in self.rows:
            if self.dyn is not None:
                self.w(f"{dst}{c} = quadd({src}{c}_{j % 2}, p{j // 2}{' + Z' if self.rev and self.qd else ''})")
            elif self.qd and self.rev:
                self.w(f"{dst}{c} = quadd({src}{c}_{j % 2}, 0 * lane + ({j // 2} + Z))")
            else:
                self.w(f"{dst}{c} = quad({src}{c}_{j % 2}, {j // 2})")

    def step(self, bp, j, keep=None):
        """h <- 2^(A D) h + b X;  keep = (index in the block): keep a and every h under indexed names"""
        w = self.w
        self.bc("Dj", "D", j)
        if self.X == "mma":
            self.outer(j)
        else:
            self.bc("Xj", "X", j)
            self.ldb("b", bp, j)

            def bx(c, n):
                return f"b{n} * Xj{c}"

        if self.X == "mma":

            def bx(c, n):
                return f"bx{c}_{n}"

        for c, n in self.states():
            if keep is None:
                w(f"h{c}_{n} = ex2(A{c}_{n} * Dj{c}) * h{c}_{n} + {bx(c, n)}")
            elif self.keepa:
                w(
                    f"a{keep}_{c}_{n} = ex2(A{c}_{n} * Dj{c})\nh{keep + 1}_{c}_{n} = a{keep}_{c}_{n} * h{keep}_{c}_{n} + {bx(c, n)}"
                )
            else:
                w(f"h{keep + 1}_{c}_{n} = ex2(A{c}_{n} * Dj{c}) * h{keep}_{c}_{n} + {bx(c, n)}")

    def split(self):
        """X = Xh + Xl, both exact in TF32 (to 2^-22): the A operand [channels, 8 steps] as the quads hold it"""
        for c, e in self.each():
            self.w(
                f"Xh{c}_{e} = (X{c}_{e}.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)\nXl{c}_{e} = X{c}_{e} - Xh{c}_{e}"
            )

    def ldk(self, v, ptr, adv=0):
        """B for the outer products: lane (r, k) holds steps 2k, 2k+1 of state 8q + r"""
        for q in range(self.NI // 2):
            for e in (0, 1):
                self.w(f"{v}{q}_{e} = tl.load({ptr} + {(adv + e) * self.N + 8 * q})")

    def outer(self, j):
        """bx{c}_{n} = X[c, j] b_j[n] as a rank-one mma: B masked to step j"""
        e = j % 2
        for q in range(self.NI // 2):
            self.w(f"bm = tl.where({self.pred(j // 2)}, bk{q}_{e}, 0.0)")
            b = "bm, zero" if e == 0 else "zero, bm"
            for m in range(max(1, self.CPL // 2)):
                acc = "zero, zero, zero, zero"
                for x in ("Xh", "Xl"):
                    a = [
                        f"{x}{2 * m}_0",
                        f"{x}{2 * m + 1}_0" if self.CPL > 1 else "zero",
                        f"{x}{2 * m}_1",
                        f"{x}{2 * m + 1}_1" if self.CPL > 1 else "zero",
                    ]
                    self.w(f"f0, f1, f2, f3 = mma({', '.join(a)}, {b}, {acc})")
                    acc = "f0, f1, f2, f3"
                self.w(f"bx{2 * m}_{2 * q} = f0\nbx{2 * m}_{2 * q + 1} = f1")
                if self.CPL > 1:
                    self.w(f"bx{2 * m + 1}_{2 * q} = f2\nbx{2 * m + 1}_{2 * q + 1} = f3")

    def nsum(self, mode, out, val, vec, j, cvec, order=1):
        """out{c}_{e} = sum over n of val(c, n) * vec[n] at step j.  mma: vec natural (own step r); shf: cvec broadcast (None: 1)"""
        w = self.w
        if mode == "mma":
            for m in range(max(1, self.CPL // 2)):
                acc = "zero, zero, zero, zero"
                for q in range(self.NI // 2):
                    a = [
                        val(2 * m, 2 * q),
                        val(2 * m + 1, 2 * q) if self.CPL > 1 else "zero",
                        val(2 * m, 2 * q + 1),
                        val(2 * m + 1, 2 * q + 1) if self.CPL > 1 else "zero",
                    ]
                    w(f"f0, f1, f2, f3 = mma({', '.join(a)}, {vec}{2 * q}, {vec}{2 * q + 1}, {acc})")
                    acc = "f0, f1, f2, f3"
                e = j % 2
                for c, f in ((2 * m, f"f{e}"), (2 * m + 1, f"f{2 + e}")):
                    if c < self.CPL:
                        w(f"{out}{c}_{e} = tl.where({self.pred(j // 2)}, {f}, {out}{c}_{e})")
        else:
            for c in self.rows:
                for n in range(self.NI):
                    t = f"{val(c, n)}" + (f" * {cvec}{n}" if cvec else "")
                    w(f"s{out}{j}_{c} = " + (t if n == 0 else f"s{out}{j}_{c} + {t}"))
            self.quadsum(out, j, order)

    def quadsum(self, out, j, order):
        """reduce-scatter of s{out}{j}_{c} over the quad: lane k ends with steps 2k, 2k+1.  Steps come in the given order."""
        p, e = j // 2, j % 2
        b0 = "tl.where(kb0, {0}, {1}) + bfly(tl.where(kb0, {1}, {0}), 1)"
        b1 = "tl.where(kb1, {0}, {1}) + bfly(tl.where(kb1, {1}, {0}), 2)"
        if p % 2 == (1 if order > 0 else 0):  # its pair (p ^ 1) came before
            lo, hi = 4 * (p // 2) + e, 4 * (p // 2) + 2 + e
            for c in self.rows:
                self.w(f"t{out}{p // 2}{e}_{c} = " + b0.format(f"s{out}{hi}_{c}", f"s{out}{lo}_{c}"))
            if p // 2 == (1 if order > 0 else 0):
                for c in self.rows:
                    self.w(f"{out}{c}_{e} = " + b1.format(f"t{out}1{e}_{c}", f"t{out}0{e}_{c}"))

    def zeros(self, names):
        for v in names:
            self.w(f"{v} = zero")

    # -- forward --------------------------------------------------------------------------------------------------------
    def forward(self):
        w, T, NI, N = self.w, self.T, self.NI, self.N
        outp = self.chunk != "state"
        gate = self.gate and outp
        self.lines.append("@triton.jit")
        self.lines.append(
            f"def {self.name}(u_ptr, dt_ptr, z_ptr, B_ptr, C_ptr, Bf_ptr, A_ptr, D_ptr, bias_ptr, pos_ptr, o_ptr, s_ptr, h0_ptr, hT_ptr, sd_ptr, L, LP, NW, LC,\n"
            "        SU: tl.constexpr, SD: tl.constexpr, SZ: tl.constexpr, SO: tl.constexpr):"
        )
        self.prologue()
        if "shf" in (self.Y,):
            w("kb0 = (k & 1) != 0\nkb1 = (k & 2) != 0")
        if self.chunk:
            w("pc = tl.program_id(2)\nlo = pc * LC\nhi = tl.minimum(lo + LC, L)")
        else:
            w("lo = 0\nhi = L")
        row = "(pb * L + lo + 2 * k)"
        w(f"up = u_ptr + {row} * SU + cw\ndp = dt_ptr + {row} * SD + cw")
        if gate:
            w(f"zp = z_ptr + {row} * SZ + cw")
        if outp:
            w(f"op = o_ptr + {row} * SO + cw\ncn = C_ptr + rb + (lo + r) * {N // 2}")
            if self.Y != "mma":
                w(f"cp = C_ptr + rb + lo * {N // 2}")
        w(f"bp = B_ptr + rb + lo * {N // 2}" if self.X != "mma" else f"bkp = Bf_ptr + (pb * LP + lo + 2 * k) * {N} + r")
        reg = NI * self.CPL
        if self.save:
            w(f"sp = s_ptr + ((pb * ((L + {T - 1}) // {T}) + lo // {T}) * NW + wid) * {reg * 32} + lane")
        if self.chunk:
            w(f"hp = h0_ptr + ((pb * tl.num_programs(2) + pc) * NW + wid) * {reg * 32} + lane")
        for c, n in self.states():
            if self.chunk == "out":
                w(f"h{c}_{n} = tl.load(hp + {(c * NI + n) * 32})")
            elif self.init and not self.chunk:
                w(f"h{c}_{n} = tl.load(h0_ptr + (pb * NW * {self.WC} + ch + {c}) * {N} + 2 * k + {self.nm(n)})")
            else:
                w(f"h{c}_{n} = zero")
        if self.chunk == "state":
            self.zeros(f"sd{c}" for c in self.rows)

        def loads(t0, adv):
            for e in (0, 1):
                self.ld(f"nd{e}", f"dp + {adv + e} * SD", f"m{e}")
                self.ld(f"nu{e}", f"up + {adv + e} * SU", f"m{e}")
                if gate:
                    self.ld(f"nz{e}", f"zp + {adv + e} * SZ", f"m{e}")
            if outp and self.Y == "mma":
                self.ldb("nc", "cn", adv)
            if self.X == "mma":
                self.ldk("nbk", "bkp", adv)

        def scalars():
            for c, e in self.each():
                self.softplus("n", e, c, tag="n")
                if self.chunk == "state":
                    w(f"sd{c} += Dn{c}_{e}")

        self.masks("lo")
        self.positions("lo")
        loads("lo", 0)
        scalars()
        self.block("for t0 in range(lo, hi, 8):")
        carried = [v for e in (0, 1) for x in ("u", "z") if x == "u" or gate for v in self.names(f"{x}{e}")]
        if outp:
            for v in carried:
                w(f"{v} = n{v}")
            if self.Y == "mma":
                for n in range(NI):
                    w(f"c{n} = nc{n}")
        for c, e in self.each():
            w(f"D{c}_{e} = Dn{c}_{e}\nX{c}_{e} = Xn{c}_{e}")
        if self.X == "mma":
            self.split()
            for q in range(NI // 2):
                w(f"bk{q}_0 = nbk{q}_0\nbk{q}_1 = nbk{q}_1")
        if outp:
            w("w0 = m0\nw1 = m1")
        w(
            "m0 = t0 + 8 + 2 * k < hi\nm1 = t0 + 9 + 2 * k < hi"
            if self.chunk
            else "m0 = t0 + 8 + 2 * k < L\nm1 = t0 + 9 + 2 * k < L"
        )
        self.positions("t0 + 8")
        loads("t0 + 8", 8)
        if self.save:
            self.block(f"if t0 % {T} == 0:")
            for c, n in self.states():
                w(f"tl.store(sp + {(c * NI + n) * 32}, h{c}_{n})")
            w(f"sp += NW * {reg * 32}")
            self.end()
        if outp:
            self.zeros(f"y{c}_{e}" for c, e in self.each())
        for j in range(8):
            self.step("bp", j)
            if outp:
                if self.Y != "mma":
                    self.ldb("c", "cp", j)
                self.nsum(self.Y, "y", lambda c, n: f"h{c}_{n}", "c", j, "c")
        for e in (0, 1) if outp else ():
            for c in self.rows:
                k1 = f" * {self.k1}" if self.Y == "mma" and self.comp else ""
                w(f"o{c} = y{c}_{e}{k1} + Dv{c} * {self.un(f'u{e}', c)}")
                if gate:
                    w(f"zz = {self.un(f'z{e}', c)}\no{c} = o{c} * (zz * rcp(1.0 + ex2(zz * -{LOG2E})))")
            self.st(f"op + {e} * SO", [f"o{c}" for c in self.rows], f"w{e}")
        scalars()
        w("up += 8 * SU\ndp += 8 * SD")
        if gate:
            w("zp += 8 * SZ")
        w(f"bp += {4 * N}" if self.X != "mma" else f"bkp += {8 * N}")
        if outp:
            w(f"op += 8 * SO\n{'cn' if self.Y == 'mma' else 'cp'} += {4 * N}")
        self.end()
        if self.chunk == "state":
            for c in self.rows:
                w(f"sd{c} += bfly(sd{c}, 1)\nsd{c} += bfly(sd{c}, 2)")
                w(f"tl.store(sd_ptr + (pb * tl.num_programs(2) + pc) * NW * {self.WC} + ch + {c}, sd{c}, mask=k == 0)")
            for c, n in self.states():
                w(f"tl.store(hp + {(c * NI + n) * 32}, h{c}_{n})")
        elif self.final:
            if self.chunk:
                self.block("if pc == tl.num_programs(2) - 1:")
            for c, n in self.states():
                w(f"tl.store(hT_ptr + (pb * NW * {self.WC} + ch + {c}) * {N} + 2 * k + {self.nm(n)}, h{c}_{n})")
            if self.chunk:
                self.end()
        return "\n".join(self.lines) + "\n\n\n"

    # -- backward -------------------------------------------------------------------------------------------------------
    def backward(self):
        w, T, S, NI, N, CPL = self.w, self.T, self.S, self.NI, self.N, self.CPL
        reg = NI * CPL
        nsub = 8 // S
        self.lines.append("@triton.jit")
        self.lines.append(
            f"def {self.name}(u_ptr, dt_ptr, z_ptr, B_ptr, C_ptr, Bf_ptr, A_ptr, D_ptr, bias_ptr, pos_ptr, g_ptr, s_ptr, x_ptr, ghT_ptr, gh0_ptr, du_ptr, ddt_ptr, dz_ptr, dBC_ptr,\n"
            "        dA_ptr, dD_ptr, db_ptr, L, LP, NW, BLN, Z, SU: tl.constexpr, SD: tl.constexpr, SZ: tl.constexpr, SG: tl.constexpr, SO: tl.constexpr):"
        )
        self.prologue()
        w("kb0 = (k & 1) != 0\nkb1 = (k & 2) != 0")
        if self.BC == "smem":
            self.NS = S if self.loop else 8  # steps between reductions
            w(
                "\n".join(
                    f"sm{x}{j} = tl.allocate_shared_memory(tl.float32, [{self.n}, 4], SMEM)"
                    for j in range(self.NS)
                    for x in "BC"
                )
            )
        elif self.BC == "mma":
            w("sel0 = tl.where(r == k, 1.0, 0.0)\nsel1 = tl.where(r == k + 4, 1.0, 0.0)")
        else:
            w("r0 = (r & 1) != 0\nr1 = (r & 2) != 0\nr2 = (r & 4) != 0")
        if self.R == "mma":
            w("odd = tl.where((r & 1) != 0, 1.0, 0.0)\neven = 1.0 - odd")
        for c, n in self.states():
            w(
                f"g{c}_{n} = "
                + (
                    f"tl.load(ghT_ptr + (pb * NW * {self.WC} + ch + {c}) * {N} + 2 * k + {self.nm(n)})"
                    if self.final
                    else "zero"
                )
            )
            w(f"dA{c}_{n} = zero")
        self.zeros([f"{v}{c}" for v in ("dD", "db") for c in self.rows])
        # scratch of the sub-checkpoints: private to the warp, slot s = start of sub-block s of the block
        w(f"xp = x_ptr + (pb * NW + wid) * {reg * 32 * (T // S)} + lane")
        w(f"nb = (L + {T - 1}) // {T}")
        for v, st in (("u", "SU"), ("dt", "SD"), ("z", "SZ"), ("g", "SG"), ("du", "SO"), ("ddt", "SO"), ("dz", "SO")):
            w(f"{v}_base = {v}_ptr + pb * L * {st}")
        self.block("for ib in range(0, nb):")
        w("blk = nb - 1 - ib")
        w(f"tb = blk * {T}\nng = tl.minimum((L - tb + 7) // 8, {T // 8})")
        w(f"row = tb + 2 * k\nbp = B_ptr + rb + tb * {N // 2}")
        if self.X == "mma":
            w(f"bkp = Bf_ptr + (pb * LP + tb + 2 * k) * {N} + r")
        w(f"sp = s_ptr + ((pb * nb + blk) * NW + wid) * {reg * 32} + lane")
        for c, n in self.states():
            w(f"h{c}_{n} = tl.load(sp + {(c * NI + n) * 32})")

        def rawld(pre, adv, which):
            for v, name, st in (("u", "u", "SU"), ("d", "dt", "SD"), ("z", "z", "SZ"), ("gr", "g", "SG")):
                if v in which:
                    w(f"at = {name}_base + ((row{f' + {adv}' if adv else ''}) * {st} + cw)")
                    for e in (0, 1):
                        self.ld(f"{pre}{v}{e}", f"at + {e} * {st}", f"m{e}")

        def savesub(s):
            for c, n in self.states():
                w(
                    f"tl.store(xp + {s} * {reg * 32} + {(c * NI + n) * 32}, h{c}_{n})"
                    if isinstance(s, int)
                    else f"tl.store(xq + {(c * NI + n) * 32}, h{c}_{n})"
                )

        # level 1: forward over the block, the states at the start of each sub-block to scratch
        w("t0 = tb\nxq = xp")
        self.masks("tb")
        rawld("n", 0, ("u", "d"))
        self.block("for ig in range(0, ng - 1):")
        for v in [v for e in (0, 1) for x in ("u", "d") for v in self.names(f"{x}{e}")]:
            w(f"l{v} = n{v}")
        self.masks("t0")
        self.positions("t0")
        for c, e in self.each():
            self.softplus("l", e, c)
        if self.X == "mma":
            self.split()
            self.ldk("bk", "bkp")
        self.masks("t0 + 8")
        rawld("n", 8, ("u", "d"))
        for j in range(8):
            if j % S == 0:
                savesub("q")
                w(f"xq += {reg * 32}")
            self.step("bp", j)
        w(f"row += 8\nbp += {4 * N}\nt0 += 8")
        if self.X == "mma":
            w(f"bkp += {8 * N}")
        self.end()
        savesub("q")
        if nsub > 1:  # the last group, up to the start of its last sub-block
            self.masks("t0")
            self.positions("t0")
            for c, e in self.each():
                self.softplus("n", e, c)
            if self.X == "mma":
                self.split()
                self.ldk("bk", "bkp")
            for j in range(8 - S):
                self.step("bp", j)
                if (j + 1) % S == 0:
                    w(f"xq += {reg * 32}")
                    savesub("q")
        # level 2: groups backwards
        w("t0 = tb + 8 * (ng - 1)")
        w(f"cp = C_ptr + rb + t0 * {N // 2}")
        allraw = ("u", "d", "z", "gr")
        if self.pfraw:
            self.masks("t0")
            rawld("n", 0, allraw)
        raws = [v for e in (0, 1) for x in ("u", "d", "z", "gr") for v in self.names(f"{x}{e}")]
        if self.pfx:
            for c, n in self.states():
                w(f"x{c}_{n} = h{c}_{n}")  # state at the start of the last sub-block
        self.block("for ig in range(0, ng):")
        self.masks("t0")
        if self.pfraw:
            for v in raws:
                w(f"{v} = n{v}")
        else:
            rawld("", 0, allraw)
        self.positions("t0")
        for e in (0, 1):
            for c in self.rows:
                self.softplus("", e, c, grad=True)
                w(
                    f"zz = {self.un(f'z{e}', c)}\nsz = rcp(1.0 + ex2(zz * -{LOG2E}))\nG{c}_{e} = {self.un(f'gr{e}', c)} * sz * zz"
                )
        w("w0 = m0\nw1 = m1")
        # next group: t0 - 8, always whole; none before the block's first
        w("more = ig + 1 < ng\nm0 = more & (k >= 0)\nm1 = m0")
        if self.pfraw:
            rawld("n", -8, allraw)
        if self.X == "mma":
            self.split()
            self.ldk("bk", "bkp")
        if self.Y == "mma":
            w(f"cn = cp + r * {N // 2}")
            self.ldb("cc", "cn", 0)
        if self.R == "mma":
            w(f"bn = bp + r * {N // 2}")
            self.ldb("bb", "bn", 0)
        for v in ("y", "sb", "dd"):
            self.zeros(f"{v}{c}_{e}" for c, e in self.each())
        if self.BC == "mma":
            self.zeros(f"{x}{q}" for x in ("dB", "dC") for q in range(4 * (NI // 4)))
        if self.loop:
            assert self.Y == self.R == "mma"
            assert self.BC != "shf"
            assert not self.pfx
            self.dyn = S
            w(f"rj = {8 - S}\nbp += {(8 - S) * N // 2}\ncp += {(8 - S) * N // 2}")
            self.block(f"for isub in range({nsub}):")
            for p in range(S // 2):
                w(f"p{p} = 0 * lane + (rj // 2 + {p})\nkp{p} = k == rj // 2 + {p}")
            self.subblock(0)
            if self.BC == "smem":
                self.smem_reduce("t0 + rj")
            w(f"rj -= {S}\nbp -= {S * N // 2}\ncp -= {S * N // 2}")
            self.end()
            w(f"bp += {S * N // 2}\ncp += {S * N // 2}")
            self.dyn = None
        else:
            for s in reversed(range(nsub)):
                self.subblock(s)
        w("m0 = w0\nm1 = w1")
        rawld("", 0, ("u", "z", "gr"))  # again, from L1: cheaper than to hold them
        self.epilogue()
        w(f"t0 -= 8\nrow -= 8\nbp -= {4 * N}\ncp -= {4 * N}")
        if self.X == "mma":
            w(f"bkp -= {8 * N}")
        self.end()
        self.end()
        for c, n in self.states():
            w(
                f"tl.store(dA_ptr + (pb * NW * {self.WC} + ch + {c}) * {N} + 2 * k + {self.nm(n)}, dA{c}_{n} * A{c}_{n} * {LN2})"
            )
            if self.init:
                w(f"tl.store(gh0_ptr + (pb * NW * {self.WC} + ch + {c}) * {N} + 2 * k + {self.nm(n)}, g{c}_{n})")
        for c in self.rows:
            for v in ("dD", "db"):
                w(
                    f"{v}{c} += bfly({v}{c}, 1)\n{v}{c} += bfly({v}{c}, 2)\ntl.store({v}_ptr + pb * NW * {self.WC} + ch + {c}, {v}{c}, mask=k == 0)"
                )
        return "\n".join(self.lines) + "\n\n\n"

    def reverse(self, j, m):
        w, NI = self.w, self.NI
        self.bc("Dj", "D", j)
        self.bc("Xj", "X", j)
        self.bc("Gj", "G", j)
        self.ldb("c", "cp", j)
        if self.R != "mma":
            self.ldb("b", "bp", j)
        if self.Y != "mma":
            self.nsum("shf", "y", lambda c, n: f"h{m + 1}_{c}_{n}", None, j, "c", order=-1)
        for c, n in self.states():
            w(f"g{c}_{n} = c{n} * Gj{c} + g{c}_{n}")
            if not self.loop:
                w(f"pC{n} = " + (f"h{m + 1}_{c}_{n} * Gj{c}" if c == 0 else f"h{m + 1}_{c}_{n} * Gj{c} + pC{n}"))
            w(f"pB{n} = " + (f"g{c}_{n} * Xj{c}" if c == 0 else f"g{c}_{n} * Xj{c} + pB{n}"))
        self.nsum(self.R, "sb", lambda c, n: f"g{c}_{n}", "bb", j, "b", order=-1)
        for c in self.rows:
            for n in range(NI):
                a = f"a{m}_{c}_{n}" if self.keepa else f"ex2v(A{c}_{n} * Dj{c})"
                w(f"g{c}_{n} = g{c}_{n} * {a}\nt = g{c}_{n} * h{m}_{c}_{n}\ndA{c}_{n} = t * Dj{c} + dA{c}_{n}")
                w(f"sdd{j}_{c} = " + (f"t * A{c}_{n}" if n == 0 else f"t * A{c}_{n} + sdd{j}_{c}"))
        if self.R != "mma":
            self.quadsum("dd", j, -1)
        elif j % 2 == 0:  # steps j, j+1 in one mma: even columns the one, odd columns the other
            for q in range(max(1, self.CPL // 2)):
                two = self.CPL > 1
                w(
                    f"f0, f1, f2, f3 = mma(sdd{j}_{2 * q}, {f'sdd{j}_{2 * q + 1}' if two else 'zero'}, sdd{j + 1}_{2 * q}, {f'sdd{j + 1}_{2 * q + 1}' if two else 'zero'}, even, odd, zero, zero, zero, zero)"
                )
                for c, f in ((2 * q, "f0"), (2 * q, "f1"), (2 * q + 1, "f2"), (2 * q + 1, "f3"))[: 4 if two else 2]:
                    e = int(f[1]) % 2
                    w(f"dd{c}_{e} = tl.where({self.pred(j // 2)}, {f}, dd{c}_{e})")
        if self.BC in ("mma", "smem"):
            self.chsum(j, ("B",) if self.loop else ("B", "C"))
        else:
            for x in ("B", "C"):
                for n in range(NI):
                    w(f"p{x}{n}_{j} = p{x}{n}")
                    if j % 2 == 0:
                        w(
                            f"q{x}{n}_{j // 2} = tl.where(r0, p{x}{n}_{j + 1}, p{x}{n}_{j}) + bfly(tl.where(r0, p{x}{n}_{j}, p{x}{n}_{j + 1}), 4)"
                        )
                    if j % 4 == 0:
                        w(
                            f"v{x}{n}_{j // 4} = tl.where(r1, q{x}{n}_{j // 2 + 1}, q{x}{n}_{j // 2}) + bfly(tl.where(r1, q{x}{n}_{j // 2}, q{x}{n}_{j // 2 + 1}), 8)"
                        )
                    if j == 0:
                        w(
                            f"d{x}{n} = tl.where(r2, v{x}{n}_1, v{x}{n}_0) + bfly(tl.where(r2, v{x}{n}_0, v{x}{n}_1), 16)"
                        )

    def subblock(self, s):
        w, S, NI = self.w, self.S, self.NI
        reg = NI * self.CPL
        # slots of states at sub-block starts go down by one each time
        if self.pfx:
            for c, n in self.states():
                w(f"h0_{c}_{n} = x{c}_{n}")
            w(f"xq -= tl.where(more, {reg * 32}, 0)" if s == 0 else f"xq -= {reg * 32}")
        for c, n in self.states():
            w(f"{'x' if self.pfx else 'h0_'}{c}_{n} = tl.load(xq + {(c * NI + n) * 32})")
        if not self.pfx:
            w(f"xq -= {reg * 32}")
        for m in range(S):
            j = s * S + m
            self.step("bp", j, keep=m)
            if self.loop:  # what needs only h: y and dC
                self.nsum("mma", "y", lambda c, n: f"h{m + 1}_{c}_{n}", "cc", j, None)
                self.bc("Gj", "G", j)
                for c, n in self.states():
                    w(f"pC{n} = " + (f"h{m + 1}_{c}_{n} * Gj{c}" if c == 0 else f"h{m + 1}_{c}_{n} * Gj{c} + pC{n}"))
                self.chsum(j, ("C",))
        if not self.loop:
            for m in range(S):
                if self.Y == "mma":
                    self.nsum("mma", "y", lambda c, n: f"h{m + 1}_{c}_{n}", "cc", s * S + m, None)
        self.rev = True
        for m in reversed(range(S)):
            self.reverse(s * S + m, m)
        self.rev = False

    def smem_reduce(self, t0):
        """the lanes' partials of NS steps, summed over the CTA's channels; thread (step, k), all r and a run of states in registers"""
        w, N = self.w, self.N
        w(
            "kk = tl.arange(0, 4, layout=tl.SliceLayout(1, tl.SliceLayout(0, SUM)))[:, None]\nii = tl.arange(0, 4, layout=tl.SliceLayout(0, tl.SliceLayout(0, SUM)))[None, :]"
        )
        w("nn = 2 * kk + 8 * (ii // 2) + ii % 2")
        for x in "BC":
            off = "0" if x == "B" else "BLN"
            w(
                f"qp = dBC_ptr + {off} + (pb * L + {t0}) * {N}"
                + (" + pid.to(tl.int64) * 2 * BLN" if self.out == "part" else "")
            )
            for j in range(self.NS):
                w(f"red{x} = tl.sum(sm{x}{j}.reshape([{8 * self.W}, 4, 4]).load(SUM), axis=0)")
                if self.out == "atomic":
                    w(f"tl.atomic_add(qp + {j * N} + nn, red{x}, mask=({t0} + {j} < L) & (nn >= 0), sem='relaxed')")
                else:
                    w(f"tl.store(qp + {j * N} + nn, red{x}, mask=({t0} + {j} < L) & (nn >= 0))")

    def chsum(self, j, which):
        """d{x}[n, column j] += sum over the warp's channels of the lane's partials p{x}{n}"""
        one = f"r == {j}" if self.dyn is None else f"r == rj + {j}"
        if self.BC == "smem":
            for x in which:
                p = f"p{x}"
                self.w(
                    f"sm{x}{j % self.NS}.store(tl.reshape(tl.join(tl.join({p}0, {p}2), tl.join({p}1, {p}3)), ({self.n}, 4)))"
                )
            return
        self.w(f"one = tl.where({one}, 1.0, 0.0)")
        for x in which:
            for q in range(self.NI // 4):  # 16 rows of states at a time
                p = [f"p{x}{4 * q + i}" for i in range(4)]
                self.w(f"f0, f1, f2, f3 = mma(sel0, zero, sel1, zero, {p[0]}, {p[1]}, zero, zero, zero, zero)")
                self.w(f"f0, f1, f2, f3 = mma(zero, sel0, zero, sel1, {p[2]}, {p[3]}, f0, f1, f2, f3)")
                acc = ", ".join(f"d{x}{4 * q + i}" for i in range(4))
                self.w(f"{acc} = mma(f0, f2, f1, f3, one, one, {acc})")

    def pred(self, p):
        return f"k{p}" if self.dyn is None else f"kp{p}"

    def epilogue(self):
        w, NI, N = self.w, self.NI, self.N
        for e in (0, 1):
            for c in self.rows:
                k1 = f" * {self.k1}" if self.Y == "mma" and self.comp else ""
                k3 = f" * {self.k1}" if self.R == "mma" and self.comp else ""
                w(
                    f"zz = {self.un(f'z{e}', c)}\nsz = rcp(1.0 + ex2v(zz * -{LOG2E}))\ngz = {self.un(f'gr{e}', c)} * sz\nzf = 1.0 + zz - zz * sz"
                )
                w(f"uu = {self.un(f'u{e}', c)}\nyy = y{c}_{e}{k1} + Dv{c} * uu\ngy = G{c}_{e}\nsb = sb{c}_{e}{k3}")
                w(
                    f"ddt{c} = (dd{c}_{e}{k3} + sb * uu) * sg{c}_{e}\ndu{c} = sb * ({'dl' if self.pos else 'D'}{c}_{e} * {LN2}) + gy * Dv{c}\ndz{c} = gz * yy * zf"
                )
                w(f"db{c} += tl.where(w{e}, ddt{c}, 0.0)\ndD{c} += gy * uu")
            for v in ("du", "ddt", "dz"):
                self.st(f"{v}_base + ((row + {e}) * SO + cw)", [f"{v}{c}" for c in self.rows], f"w{e}")
        if self.BC == "smem":
            if not self.loop:
                self.smem_reduce("t0")
            return
        # dB, dC of the group: mma: lane holds (n, 2k), (n, 2k+1) for two n; shf: step r, NI states
        vals, offs, ms = [], [], []
        for x in ("B", "C"):
            base = "0" if x == "B" else "BLN"
            if self.BC == "mma":
                for q in range(NI // 4):
                    for i in range(4):
                        vals.append(f"d{x}{4 * q + i}" + (f" * {self.k2}" if self.comp else ""))
                        # row r or r + 8 of the selection: states 4q + {0, 1} + (row >> 2) of lane group row & 3
                        offs.append(f"{base} + {i % 2} * {N} + (r & 3) * 2 + {16 * q + 8 * (i // 2)} + (r >> 2)")
                        ms.append(f"w{i % 2}")
            else:
                for n in range(NI):
                    vals.append(f"d{x}{n}")
                    offs.append(f"{base} + 2 * k + {self.nm(n)}")
                    ms.append("wr")
        w(
            f"qp = dBC_ptr + (pb * L + t0 + {'2 * k' if self.BC == 'mma' else 'r'}) * {N}"
            + (" + pid.to(tl.int64) * 2 * BLN" if self.out == "part" else "")
        )
        if self.BC != "mma":
            w("wr = t0 + r < L")
        if self.W == 1:
            for v, o, m in zip(vals, offs, ms, strict=False):
                w(
                    f"tl.atomic_add(qp + {o}, {v}, mask={m}, sem='relaxed')"
                    if self.out == "atomic"
                    else f"tl.store(qp + {o}, {v}, mask={m})"
                )
        else:
            W = self.W
            # one pass through shared memory for all values: (32 W, 8...) -> sum over W
            cur = list(vals)
            names = []
            for q, v in enumerate(cur):
                w(f"cs{q} = {v}")
                names.append(f"cs{q}")
            lvl = 0
            while len(names) > 1:
                nxt = []
                for q in range(0, len(names), 2):
                    w(f"cj{lvl}_{q // 2} = tl.join({names[q]}, {names[q + 1]})")
                    nxt.append(f"cj{lvl}_{q // 2}")
                names, lvl = nxt, lvl + 1
            V = len(vals)
            w(f"red = tl.sum(tl.reshape({names[0]}, ({W}, 32, {V})), axis=0)")
            # element (lane, f): f's bits are in join order: first join is the last axis
            nb = V.bit_length() - 1
            w(f"l1 = tl.arange(0, 32)[:, None]\nf1 = tl.arange(0, {V})[None, :]\nrk = l1 & 3\nrr = l1 >> 2")
            # reshape puts the last join (topmost) as the fastest axis: value index q = bit-reversed f
            rev = " | ".join(f"(((f1 >> {b}) & 1) << {nb - 1 - b})" for b in range(nb))
            w(f"qi = {rev}\nhalf = qi >> {nb - 1}\nqv = qi & {V // 2 - 1}")
            if self.BC == "mma":
                w("tq = t0 + 2 * rk + (qv & 1)\nnq = (rr & 3) * 2 + (qv >> 1) * 8 + (rr >> 2)")
            else:
                w("tq = t0 + rr + 0 * qv\nnq = rk * 2 + (qv >> 1) * 8 + (qv & 1)")
            w(
                f"rp = dBC_ptr + half * BLN + (pb * L + tq) * {N} + nq"
                + (" + pid.to(tl.int64) * 2 * BLN" if self.out == "part" else "")
            )
            w(
                "tl.atomic_add(rp, red, mask=tq < L, sem='relaxed')"
                if self.out == "atomic"
                else "tl.store(rp, red, mask=tq < L)"
            )


def kernel(name, kind, dialect="tl", **o):
    """the module's source.  dialect "gl": the same program in Gluon, whose layouts are given and not searched for"""
    g = Gen(name, kind, **o)
    body = g.forward() if kind == "fwd" else g.backward()
    names = "['L', 'LP', 'NW', 'LC']" if kind == "fwd" else "['L', 'LP', 'NW', 'BLN', 'Z']"
    body = body.replace("@triton.jit", f"@triton.jit(do_not_specialize={names})")
    if dialect == "tl":
        return HEAD + body
    n = 32 * g.W
    body = body.replace("@triton.jit", "@gluon.jit").replace(
        f"tl.arange(0, {n})\n", f"tl.arange(0, {n}, layout=LANES)\n"
    )
    body = body.replace(f"tl.zeros(({n},), dtype=tl.float32)", f"tl.zeros(({n},), dtype=tl.float32, layout=LANES)")
    body = body.replace(
        "l1 = tl.arange(0, 32)[:, None]",
        "RED: tl.constexpr = red.type.layout\n            l1 = tl.arange(0, 32, layout=tl.SliceLayout(1, RED))[:, None]",
    )
    body = re.sub(
        r"f1 = tl.arange\(0, (\d+)\)\[None, :\]", r"f1 = tl.arange(0, \1, layout=tl.SliceLayout(0, RED))[None, :]", body
    )
    head = HEAD.replace(
        "import triton\nimport triton.language as tl",
        "from triton.experimental import gluon\nfrom triton.experimental.gluon import language as gl",
    ).replace("from unrolled_primitives ", "from unrolled_primitives_gluon ")
    if g.BC == "smem":
        head += f"SMEM = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))\nSUM = gl.constexpr(gl.BlockedLayout([1, 1, 1], [2, 4, 4], [{g.W}, 1, 1], [2, 1, 0]))\n"
    return head + f"LANES = gl.constexpr(gl.BlockedLayout([1], [32], [{g.W}], [0]))\n\n\n" + body.replace("tl.", "gl.")
