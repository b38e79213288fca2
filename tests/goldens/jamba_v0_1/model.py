"""jamba_v0_1: the model that spec.arch describes, as archc lowered it.

Tensors are channel-last: B sequences, T tokens, then channels or heads. Every mixer takes whole sequences, chunks and
single tokens through the same call: `cache` holds what it keeps between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import AttentionState, attention
from .cache import Cache
from .causal_conv1d import causal_conv1d
from .depthwise import DepthwiseConv1d
from .experts import combine, dispatch, expert_linear
from .initialise import A_log_, dt_bias_, dt_weight_, normal_, ones_, uniform_
from .precision import promote
from .projections import Packed, fused_linear
from .recompute import Recompute, layer_call
from .rms_norm import add_rms_norm, rms_norm
from .routing import route
from .selective_scan import selective_scan
from .swiglu import swiglu

NAME = "jamba_v0_1"
SPEC_HASH = "1261348d04c9d78ac292c3fb5dae534277d3e551f3235b75c815f22b66387dec"
VOCAB = 65536
CONTEXT = 262144
N_RESIDUAL_ADDS = 64  # projections into the residual stream start smaller by its square root
NO_DECAY: tuple[str, ...] = (
    ".A_log",
    ".B_norm.weight",
    ".C_norm.weight",
    ".D",
    ".conv1d.bias",
    ".dt_norm.weight",
    ".dt_proj.bias",
    ".mixer_norm.weight",
    ".mlp_norm.weight",
    ".norm.weight",
)
KEEP_FP32: tuple[str, ...] = (".A_log", ".D", ".dt_proj.bias")


class Model(nn.Module):
    """jamba_v0_1: tokens to logits."""

    recompute: Recompute = "none"  # what layers keep for backward, and what they compute again

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(65536, 4096)
        self.norm = nn.RMSNorm(4096, eps=1e-06)
        self.lm_head = nn.Linear(4096, 65536, bias=False)
        self.layers = nn.ModuleList(stack())
        self.init_weights()

    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits `[B, T, 65536]` of tokens `[B, T]`.

        `positions` `[B, T]` is the index of each token within its document (None: one document from 0); `cache` is what
        earlier calls left, and is brought up to date in place.
        """
        states: list[Any] = [None] * len(self.layers)
        if cache is not None:
            states = cache.states
            positions = cache.positions(*tokens.shape) if positions is None else positions
        delta: Tensor | None = None
        residual = self.embed(tokens)  # [B, T, d_model]
        call = layer_call(self.recompute if cache is None else "none", pending=True)
        for layer, state in zip(self.layers, states, strict=True):
            delta, residual = call(layer, delta, residual, positions, state)
        h, _ = add_rms_norm(delta, residual, self.norm.weight, 1e-06)  # [B, T, d_model] each
        logits: Tensor = self.lm_head(h)  # [B, T, vocab]
        if cache is not None:
            cache.advance(tokens.shape[1])
        return logits

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise every weight in place, also after construction on the meta device and `to_empty`."""
        normal_(self.embed.weight, 0.02)
        for layer in self._layers():
            layer.init_weights()
        ones_(self.norm.weight)
        normal_(self.lm_head.weight, 0.02)

    def init_cache(
        self,
        batch: int,
        context: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Cache:
        """An empty cache for `batch` sequences of up to `context` tokens, by default in the dtype of the embedding."""
        like = self.embed.weight
        length = torch.zeros((), dtype=torch.int64, device=device or like.device)
        states: list[Any] = [layer.init_cache(batch, context, dtype or like.dtype, length) for layer in self._layers()]
        return Cache(states, length, capacity=context)

    def no_decay(self) -> set[str]:
        """Names of the parameters that weight decay must leave alone."""
        return {name for name, _ in self.named_parameters() if f".{name}".endswith(NO_DECAY)}

    def keep_fp32(self) -> set[str]:
        """Names of the parameters that stay in fp32 when the model is cast to a narrower type."""
        return {name for name, _ in self.named_parameters() if f".{name}".endswith(KEEP_FP32)}

    def _layers(self) -> Iterator[Layer]:
        for layer in self.layers:
            assert isinstance(layer, Layer)
            yield layer


def stack() -> Iterator[Layer]:
    """The layers in order, as the spec rolls them."""
    for _ in range(4):
        for _ in range(2):
            yield Layer(Mamba(), SwiGLU())
            yield Layer(Mamba(), MoE())
        yield Layer(Attention(), SwiGLU())
        yield Layer(Mamba(), MoE())
        yield Layer(Mamba(), SwiGLU())
        yield Layer(Mamba(), MoE())


class Layer(nn.Module):
    """One layer: mixer and mlp, behind their norms."""

    def __init__(self, mixer: Mamba | Attention, mlp: SwiGLU | MoE) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(4096, eps=1e-06)
        self.mlp_norm = nn.RMSNorm(4096, eps=1e-06)
        self.mixer = mixer
        self.mlp = mlp

    def forward(
        self,
        delta: Tensor | None,
        residual: Tensor,
        positions: Tensor | None = None,
        cache: MambaCache | AttentionCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        x, residual = add_rms_norm(delta, residual, self.mixer_norm.weight, 1e-06)  # [B, T, d_model] each
        delta = self.mixer(x, positions, cache)  # [B, T, d_model]
        x, residual = add_rms_norm(delta, residual, self.mlp_norm.weight, 1e-06)  # [B, T, d_model] each
        delta = self.mlp(x)  # [B, T, d_model]
        return delta, residual

    def init_weights(self) -> None:
        ones_(self.mixer_norm.weight)
        ones_(self.mlp_norm.weight)
        self.mixer.init_weights()
        self.mlp.init_weights()

    def init_cache(self, batch: int, context: int, dtype: torch.dtype, length: Tensor) -> MambaCache | AttentionCache:
        return self.mixer.init_cache(batch, context, dtype, length)


class MambaCache(NamedTuple):
    """What Mamba keeps between tokens."""

    conv: Tensor  # [B, d_conv - 1, d_inner]
    ssm: Tensor  # [B, d_inner, d_state]


class Mamba(nn.Module):
    """Mamba: a selective state-space mixer (Gu & Dao 2023, arXiv:2312.00752)."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(4096, 16384, bias=False)  # d_inner, d_inner
        self.conv1d = DepthwiseConv1d(8192, 4)
        self.x_proj = nn.Linear(8192, 288, bias=False)  # dt_rank, d_state, d_state
        self.dt_norm = nn.RMSNorm(256, eps=1e-06)
        self.B_norm = nn.RMSNorm(16, eps=1e-06)
        self.C_norm = nn.RMSNorm(16, eps=1e-06)
        self.dt_proj = nn.Linear(256, 8192, bias=True)
        self.out_proj = nn.Linear(8192, 4096, bias=False)
        self.A_log = nn.Parameter(torch.empty(8192, 16))  # [d_inner, d_state]
        self.D = nn.Parameter(torch.empty(8192))  # [d_inner]

    def forward(self, h: Tensor, positions: Tensor | None = None, cache: MambaCache | None = None) -> Tensor:
        x, z = self.in_proj(h).chunk(2, dim=-1)  # [B, T, d_inner] each
        # [B, T, d_inner]
        x = causal_conv1d(
            x, self.conv1d.weight, self.conv1d.bias, positions=positions, state=cache.conv if cache else None
        )
        dt, B, C = torch.split(self.x_proj(x), [256, 16, 16], dim=-1)  # [B, T, dt_rank], [B, T, d_state]
        dt = rms_norm(dt, self.dt_norm.weight, 1e-06)  # [B, T, dt_rank]
        B = rms_norm(B, self.B_norm.weight, 1e-06)  # [B, T, d_state]
        C = rms_norm(C, self.C_norm.weight, 1e-06)  # [B, T, d_state]
        dt = F.linear(dt, self.dt_proj.weight)  # [B, T, d_inner]
        # [B, T, d_inner]
        y = selective_scan(
            x,
            dt,
            self.A_log,
            B,
            C,
            self.D,
            z,
            self.dt_proj.bias,
            positions=positions,
            state=cache.ssm if cache else None,
        )
        delta: Tensor = self.out_proj(y)  # [B, T, d_model]
        return delta

    def init_weights(self) -> None:
        normal_(self.in_proj.weight, 0.02)
        uniform_(self.conv1d.weight, 0.5)
        uniform_(self.conv1d.bias, 0.5)
        normal_(self.x_proj.weight, 0.02)
        ones_(self.dt_norm.weight)
        ones_(self.B_norm.weight)
        ones_(self.C_norm.weight)
        dt_weight_(self.dt_proj.weight, 256)
        dt_bias_(self.dt_proj.bias)
        A_log_(self.A_log)
        ones_(self.D)
        normal_(self.out_proj.weight, 0.02 * N_RESIDUAL_ADDS**-0.5)

    def init_cache(self, batch: int, context: int, dtype: torch.dtype, length: Tensor) -> MambaCache:
        return MambaCache(
            conv=torch.zeros(batch, 3, 8192, dtype=dtype, device=length.device),
            ssm=torch.zeros(batch, 8192, 16, dtype=promote(dtype), device=length.device),
        )


class SwiGLU(Packed):
    """`down(silu(gate(h)) * up(h))` (Shazeer 2020, arXiv:2002.05202)."""

    packs = (("gate_proj", "up_proj"),)

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(4096, 14336, bias=False)
        self.up_proj = nn.Linear(4096, 14336, bias=False)
        self.down_proj = nn.Linear(14336, 4096, bias=False)
        self.pack()

    def forward(self, h: Tensor) -> Tensor:
        gate, up = fused_linear(h, self.gate_proj, self.up_proj)  # [B, T, d_ff] each
        y = swiglu(gate, up)  # [B, T, d_ff]
        delta: Tensor = self.down_proj(y)  # [B, T, d_model]
        return delta

    def init_weights(self) -> None:
        normal_(self.gate_proj.weight, 0.02)
        normal_(self.up_proj.weight, 0.02)
        normal_(self.down_proj.weight, 0.02 * N_RESIDUAL_ADDS**-0.5)


class MoE(nn.Module):
    """A mixture of experts: each token goes through `top_k` of `n_experts` networks (arXiv:1701.06538)."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(4096, 16, bias=False)
        self.experts = nn.ParameterDict()
        self.experts["gate_proj"] = nn.Parameter(torch.empty(16, 14336, 4096))  # [n_experts, d_ff, d_model]
        self.experts["up_proj"] = nn.Parameter(torch.empty(16, 14336, 4096))  # [n_experts, d_ff, d_model]
        self.experts["down_proj"] = nn.Parameter(torch.empty(16, 4096, 14336))  # [n_experts, d_model, d_ff]

    def forward(self, h: Tensor) -> Tensor:
        logits = self.router(h)  # [B, T, n_experts]
        weights, experts = route(logits, top_k=2)  # [B, T, top_k] each
        rows, plan = dispatch(h, experts, n_experts=16)  # [rows, d_model]
        gate = expert_linear(rows, self.experts["gate_proj"], plan)  # [rows, d_ff]
        up = expert_linear(rows, self.experts["up_proj"], plan)  # [rows, d_ff]
        y = swiglu(gate, up)  # [rows, d_ff]
        rows = expert_linear(y, self.experts["down_proj"], plan)  # [rows, d_model]
        return combine(rows, weights, plan)  # [B, T, d_model]

    def init_weights(self) -> None:
        normal_(self.router.weight, 0.02)
        normal_(self.experts["gate_proj"], 0.02)
        normal_(self.experts["up_proj"], 0.02)
        normal_(self.experts["down_proj"], 0.02 * N_RESIDUAL_ADDS**-0.5)


class AttentionCache(NamedTuple):
    """What Attention keeps between tokens."""

    kv: AttentionState  # k, v: [B, tokens, n_kv_heads, d_head]


class Attention(Packed):
    """Causal softmax attention with grouped key/value heads (arXiv:1706.03762, arXiv:2305.13245)."""

    packs = (("q_proj", "k_proj", "v_proj"),)

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(4096, 4096, bias=False)
        self.k_proj = nn.Linear(4096, 1024, bias=False)
        self.v_proj = nn.Linear(4096, 1024, bias=False)
        self.o_proj = nn.Linear(4096, 4096, bias=False)
        self.pack()

    def forward(self, h: Tensor, positions: Tensor | None = None, cache: AttentionCache | None = None) -> Tensor:
        # [B, T, n_heads*d_head], [B, T, n_kv_heads*d_head]
        q, k, v = fused_linear(h, self.q_proj, self.k_proj, self.v_proj)
        q = torch.unflatten(q, -1, (32, 128))  # [B, T, n_heads, d_head]
        k = torch.unflatten(k, -1, (8, 128))  # [B, T, n_kv_heads, d_head]
        v = torch.unflatten(v, -1, (8, 128))  # [B, T, n_kv_heads, d_head]
        # [B, T, n_heads, d_head]
        y = attention(q, k, v, scale=0.08838834764831845, positions=positions, state=cache.kv if cache else None)
        y = y.flatten(-2)  # [B, T, n_heads*d_head]
        delta: Tensor = self.o_proj(y)  # [B, T, d_model]
        return delta

    def init_weights(self) -> None:
        normal_(self.q_proj.weight, 0.02)
        normal_(self.k_proj.weight, 0.02)
        normal_(self.v_proj.weight, 0.02)
        normal_(self.o_proj.weight, 0.02 * N_RESIDUAL_ADDS**-0.5)

    def init_cache(self, batch: int, context: int, dtype: torch.dtype, length: Tensor) -> AttentionCache:
        return AttentionCache(
            kv=AttentionState(
                k=torch.zeros(batch, context, 8, 128, dtype=dtype, device=length.device),
                v=torch.zeros(batch, context, 8, 128, dtype=dtype, device=length.device),
                length=length,
            ),
        )
