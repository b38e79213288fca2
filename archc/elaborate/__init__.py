"""Elaboration: the syntax tree and the layer kinds become the graph; every semantic error is found here."""
