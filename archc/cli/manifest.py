"""`manifest.json` holds a hash of every file that archc wrote into a package, and so tells what was edited since."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from archc.cli.talk import version

MANIFEST = "manifest.json"


def manifest(files: dict[str, bytes]) -> bytes:
    """Hashes of all other files; what the generator itself says of the package stands beside them."""
    said = parsed(files.pop(MANIFEST, b"{}"))
    hashes = {name: hash_of(data) for name, data in sorted(files.items())}
    return as_json({"archc": version(), **said, "files": hashes})


def recorded(folder: Path) -> dict[str, str]:
    """The hash that archc left under each name. Names that leave the folder are not believed."""
    files = parsed(content(folder / MANIFEST) or b"").get("files")
    if not isinstance(files, dict):
        return {}
    return {str(name): str(hashed) for name, hashed in files.items() if is_plain(str(name))}


def is_manifest(data: bytes | None) -> bool:
    return data is not None and {"archc", "files"} <= parsed(data).keys()


def parsed(data: bytes) -> dict[str, object]:
    """A JSON object; the empty one of what is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def as_json(said: Mapping[str, object]) -> bytes:
    return (json.dumps(said, indent=2) + "\n").encode()


def hash_of(data: bytes) -> str:
    return sha256(data).hexdigest()


def is_plain(name: str) -> bool:
    """Whether `name` is that of a file in the folder itself, on every system."""
    return name not in ("", ".", "..") and not any(char in name for char in "/\\\0:")


def content(path: Path) -> bytes | None:
    """The bytes of a regular file; None for a link, a folder or nothing."""
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def state_of(path: Path) -> str | None:
    """The hash of a regular file, "other" for anything else, None for nothing."""
    if not os.path.lexists(path):
        return None
    data = content(path)
    return "other" if data is None else hash_of(data)
