"""transformers in float64: what it does in float32 whatever the type of the weights, it does in float64 here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Double(TorchFunctionMode):
    """Inside, every float32 that a program asks for is a float64, `x.float()` too."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        keywords = {name: wide(value) for name, value in (keywords or {}).items()}
        return function(*map(wide, arguments), **keywords)


def wide(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
