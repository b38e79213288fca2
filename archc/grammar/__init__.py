"""The language: `arch.lark`, the syntax tree, text to tree (`parse`) and tree to text (`format`)."""
