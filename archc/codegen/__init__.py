"""Code generation: the lowered graph as the files of a package, printed, rendered from templates or copied."""
