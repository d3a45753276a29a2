"""A finding is made of whatever goes wrong, and the next thing is looked at all the same."""

from importlib.metadata import version

from reader.doctor import _finding


def test_a_missing_package_is_a_finding() -> None:
    finding = _finding("packages", lambda: version("no-such-package-anywhere"))
    assert not finding.ok
    assert finding.detail == "The package no-such-package-anywhere is not installed."
    assert "make install" in finding.way_out
