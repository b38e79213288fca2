"""The weights of a causal depthwise convolution, under the names that checkpoints know from `nn.Conv1d`."""

from torch import nn


class DepthwiseConv1d(nn.Conv1d):
    """Weight `[channels, 1, width]` and bias `[channels]`; the convolution itself is `causal_conv1d`."""

    bias: nn.Parameter

    def __init__(self, channels: int, width: int, *, bias: bool = True) -> None:
        super().__init__(channels, channels, width, groups=channels, bias=bias)
