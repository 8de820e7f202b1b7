"""Progress lines of a long loop."""

import logging
import sys

import pytest

from steering_core.progress import progress


def test_progress_yields_everything_and_logs_plain_lines(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    assert list(progress(range(3), "counting", every_s=0)) == [0, 1, 2]
    assert [record.message for record in caplog.records] == [
        "counting: 1 of 3",
        "counting: 2 of 3",
        "counting: 3 of 3",
    ]


def test_progress_of_a_generator_has_no_total(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    assert list(progress(iter("ab"), "reading", every_s=0)) == ["a", "b"]
    assert caplog.records[0].message == "reading: 1 of ?"


def test_progress_is_quiet_when_fast(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    assert len(list(progress(range(1000), "counting", every_s=1000))) == 1000
    assert caplog.records == []


def test_progress_is_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress([1, 2], "counting")) == [1, 2]
    assert "counting" in capsys.readouterr().err


def test_progress_passes_an_error_on():
    def broken():
        yield 1
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        list(progress(broken(), "counting"))
