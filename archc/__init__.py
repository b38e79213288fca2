"""The architecture compiler for hybrid language models: a declarative spec becomes budgets and PyTorch."""
