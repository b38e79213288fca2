"""Files that are the same in every generated package, kept here as real modules: linted, typed and tested in place.

archc itself never imports them, for they need torch.
"""
