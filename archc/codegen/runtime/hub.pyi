"""What the hub.py of every generated package offers: the families of checkpoints that its model belongs to."""

from .hf_family import Family

FAMILIES: tuple[Family, ...]
