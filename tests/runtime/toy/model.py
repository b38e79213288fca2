"""A hand-written model with the interface of a generated one: a gated recurrence and a mixture of stacked experts."""

import torch
from torch import Tensor, nn

from .cache import Cache

NAME = "toy"
VOCAB = 256
CONTEXT = 128
SPEC_HASH = "toy-1"
WIDTH, EXPERTS, LAYERS = 16, 3, 2


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up_proj = nn.Parameter(torch.empty(EXPERTS, 2 * WIDTH, WIDTH))
        self.down_proj = nn.Parameter(torch.empty(EXPERTS, WIDTH, 2 * WIDTH))

    def forward(self, h: Tensor, gates: Tensor) -> Tensor:
        hidden = torch.einsum("btd,efd->btef", h, self.up_proj).relu()
        return torch.einsum("btef,edf,bte->btd", hidden, self.down_proj, gates)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.decay = nn.Parameter(torch.empty(WIDTH))
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = Experts()

    def forward(self, h: Tensor, positions: Tensor | None, state: Tensor | None) -> Tensor:
        x, gate = self.in_proj(h).chunk(2, -1)
        wide = torch.promote_types(x.dtype, torch.float32)
        keep = self.decay.sigmoid().to(wide)
        memory = x.new_zeros(len(x), WIDTH, dtype=wide) if state is None else state
        outputs = []
        for t in range(x.shape[1]):
            if positions is not None:
                memory = memory * (positions[:, t, None] != 0)
            memory = keep * memory + (1 - keep) * x[:, t]
            outputs.append(memory)
        if state is not None:
            state.copy_(memory)
        h = h + torch.stack(outputs, 1).to(h.dtype) * gate.sigmoid()
        return h + self.experts(h, self.router(h).softmax(-1))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        h = self.embed(tokens)
        for i, layer in enumerate(self.layers):
            state = None if cache is None else cache.states[i][0]
            h = layer(h, positions, state)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.lm_head(h)

    def init_weights(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("decay"):
                nn.init.uniform_(parameter, 0.0, 4.0)
            else:
                nn.init.normal_(parameter, std=0.2)

    def init_cache(
        self, batch: int, context: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Cache:
        wide = torch.promote_types(dtype or torch.float32, torch.float32)
        states = [(torch.zeros(batch, WIDTH, dtype=wide, device=device),) for _ in self.layers]
        return Cache(states, torch.zeros((), dtype=torch.int64, device=device), context)

    def no_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("decay")}

    def keep_fp32(self) -> set[str]:
        return self.no_decay()
