"""Our kernels against others' in one run: a file of rows for each family, and what measures them."""
