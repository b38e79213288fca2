"""Rows of Mamba-1's scan and of its step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from .measure import Contest, Row, both, call, peer

HALF = torch.bfloat16
STATES = 16


def inputs(batch: int, length: int, channels: int) -> dict[str, torch.Tensor]:
    """As a layer makes them: x and z slices of one projection, B and C of another."""
    random = partial(torch.randn, device="cuda", dtype=HALF)
    x, z = random(batch, length, 2 * channels).split(channels, -1)
    _, B, C = random(batch, length, 16 + 2 * STATES).split((16, STATES, STATES), -1)
    A_log = torch.log(torch.arange(1, STATES + 1, device="cuda").float()).repeat(channels, 1)
    D, dt_bias = torch.randn(channels, device="cuda"), torch.randn(channels, device="cuda") * 0.5 - 3
    made = {"x": x, "dt": random(batch, length, channels), "A_log": A_log, "B": B, "C": C, "D": D, "z": z}
    return {key: value.detach().requires_grad_() for key, value in (made | {"dt_bias": dt_bias}).items()}


def transposed(x: torch.Tensor) -> torch.Tensor:
    """Channels before time, contiguous: the layout that mamba_ssm's kernel is made for."""
    return x.detach().transpose(1, 2).contiguous().requires_grad_()


def theirs(values: dict[str, torch.Tensor], channel_last: bool) -> tuple[Any, list[torch.Tensor]]:
    """A function that calls mamba_ssm's scan, and its leaves; through transposed views if `channel_last`."""
    scan = peer("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn")
    A = (-torch.exp(values["A_log"])).detach().requires_grad_()
    if channel_last:
        leaves = [values[key] for key in ("x", "dt", "B", "C", "z")]
        x, dt, B, C, z = (leaf.transpose(1, 2) for leaf in leaves)
    else:
        leaves = [transposed(values[key]) for key in ("x", "dt", "B", "C", "z")]
        x, dt, B, C, z = leaves
    run = call(scan, lambda: scan(x, dt, A, B, C, values["D"], z, values["dt_bias"], True))
    return run, [*leaves, A, values["D"], values["dt_bias"]]


def forward_row(batch: int, length: int, channels: int, package: Any) -> Contest:
    values = inputs(batch, length, channels)
    ours = getattr(package, f"scan_d{channels}")
    run, _ = theirs(values, channel_last=False)
    elements = batch * length * channels
    return Contest(
        lambda: without_graph(partial(ours, **values)),
        {"mamba_ssm CUDA": run if isinstance(run, str) else partial(without_graph, run)},
        bytes=8 * elements,
        special=(STATES + 4) * elements,
    )


def without_graph(run: Any) -> None:
    with torch.no_grad():
        run()


def both_row(batch: int, length: int, channels: int, package: Any, channel_last: bool = False) -> Contest:
    values = inputs(batch, length, channels)
    ours = getattr(package, f"scan_d{channels}")
    grad = torch.randn(batch, length, channels, device="cuda", dtype=HALF)
    run, leaves = theirs(values, channel_last)
    name = "mamba_ssm CUDA, called as by transformers" if channel_last else "mamba_ssm CUDA"
    their_grad = grad.transpose(1, 2) if channel_last else grad.transpose(1, 2).contiguous()
    elements = batch * length * channels
    return Contest(
        both(list(values.values()), partial(ours, **values), grad),
        {name: run if isinstance(run, str) else both(leaves, run, their_grad)},
        bytes=22 * elements,
        special=(3 * STATES + 10) * elements,
    )


def long_row(channels: int, package: Any) -> Contest:
    """131,072 tokens against 32 times 4096, both ours: time and memory grow no faster than the tokens do."""
    values, short = inputs(1, 131_072, channels), inputs(1, 4096, channels)
    ours = getattr(package, f"scan_d{channels}")
    grad = torch.randn(1, 131_072, channels, device="cuda", dtype=HALF)
    once = both(list(short.values()), partial(ours, **short), grad[:, :4096].contiguous())
    elements = 131_072 * channels
    return Contest(
        both(list(values.values()), partial(ours, **values), grad),
        {"ours, 32 times 4096 tokens": lambda: [once() for _ in range(32)]},
        bytes=22 * elements,
        special=(3 * STATES + 10) * elements,
    )


def step_row(batch: int, channels: int, package: Any) -> Contest:
    values = {key: value.detach() for key, value in inputs(batch, 1, channels).items()}
    ours = getattr(package, f"scan_d{channels}")
    update = peer("mamba_ssm.ops.triton.selective_state_update", "selective_state_update")
    copies = max(1, (1 << 29) // (batch * channels * STATES * 4))  # a step's state is not in the cache
    mine, other = ([torch.zeros(batch, channels, STATES, device="cuda") for _ in range(copies)] for _ in range(2))
    A = -torch.exp(values["A_log"])
    x, dt, B, C, z = (values[key][:, 0] for key in ("x", "dt", "B", "C", "z"))

    def run_ours() -> None:
        with torch.no_grad():
            for state in mine:
                ours(**values, state=state)

    def run_theirs() -> None:
        for state in other:
            update(state, x, dt, A, B, C, values["D"], z=z, dt_bias=values["dt_bias"], dt_softplus=True)

    peers = {"mamba_ssm Triton": call(update, run_theirs)}
    n_bytes = batch * channels * (8 * STATES + 8) + channels * (4 * STATES + 8)
    return Contest(run_ours, peers, bytes=n_bytes, calls=copies, graph=True)


def rows() -> list[Row]:
    """The rows, as issue and papers size them: Jamba's 8192 channels, Mamba-2.8B's 5120."""
    wide, narrow, single, short = (4, 4096, 8192), (4, 4096, 5120), (1, 4096, 8192), (8, 2048, 8192)
    name = "B{} L{} D{} N16".format
    return [
        Row("scan fwd", name(*wide), partial(forward_row, *wide), faster=2.2, floors=1.6),
        Row("scan fwd", name(*narrow), partial(forward_row, *narrow)),
        Row("scan fwd", name(*single), partial(forward_row, *single)),
        Row("scan fwd+bwd", name(*wide), partial(both_row, *wide), faster=2.5, floors=2.5, memory=1.0),
        Row("scan fwd+bwd", name(*short), partial(both_row, *short)),
        Row("scan fwd+bwd", name(*narrow), partial(both_row, *narrow), faster=2.0),
        Row("scan fwd+bwd", name(*single), partial(both_row, *single), faster=1.2),
        Row("scan fwd+bwd", name(*wide), partial(both_row, *wide, channel_last=True), faster=3.5),
        Row("scan fwd+bwd, a token", "B1 L131072 D8192 N16", partial(long_row, 8192), faster=0.91),
        Row("scan step", "B64 D8192 N16", partial(step_row, 64, 8192)),
        Row("scan step", "B256 D8192 N16", partial(step_row, 256, 8192)),
    ]
