"""What several test folders share: packages that specs give, built once a session."""

from pathlib import Path

import pytest

from tests.models.packages import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A function from spec text to its package, importable."""
    return Workshop(Path(tmp_path_factory.mktemp("workshop")))
