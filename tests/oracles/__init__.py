"""Plain programs of published models, written from their papers and sharing no code with archc."""
