"""archc: a declarative architecture compiler for hybrid language models."""

__version__ = "0.1.0"
