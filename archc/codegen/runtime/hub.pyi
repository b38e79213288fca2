"""What the hub.py of every generated package offers: its checkpoint family's names and configuration."""

FAMILY: str | None
CONFIG: dict[str, object]
REPHRASED: frozenset[str]
ALIKE: dict[str, dict[str, object]]
ROWS: tuple[tuple[str, str], ...]
USES: tuple[tuple[int, int], ...]
