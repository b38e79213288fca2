"""What several test folders share: packages that specs give, seeds that change, figures that are printed."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Run, runner
from tests.models.packages import Workshop

FIGURE = "figure"


@pytest.fixture
def archc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`archc ARGUMENTS`, in this process."""
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A function from spec text to its package, importable."""
    return Workshop(Path(tmp_path_factory.mktemp("workshop")))


@pytest.fixture(scope="session")
def seed() -> int:
    """Where random inputs begin: elsewhere each time, and with `ARCHC_SEED` where it says."""
    return int(os.environ.get("ARCHC_SEED") or time.time_ns() // 10**6)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A function that prints a measured figure when all tests are done."""
    return lambda text: record_property(FIGURE, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    figures = [text for r in reports if r.when == "call" for name, text in r.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))
