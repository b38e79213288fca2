"""Our packages against transformers' own models."""
