"""Passes over the graph: lowerings, which give another graph, and analyses, which give a table."""
