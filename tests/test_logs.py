"""What a job's log says, and what is shown of a long loop."""

import logging
import sys
import warnings
from pathlib import Path

import pytest

from steering_core.errors import ConfigError
from steering_core.logs import log_to
from steering_core.progress import progress


def test_records_and_warnings_go_to_the_file_and_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "deep" / "job.log"
    with log_to(path):
        logging.getLogger("steering_core.thing").info("first ünïcode")
        warnings.warn("take care", stacklevel=1)
    text = path.read_text(encoding="utf-8")
    assert "INFO steering_core.thing: first ünïcode" in text
    assert "take care" in text
    assert "first" in capsys.readouterr().err


def test_a_user_error_is_its_message_and_ends_the_job(tmp_path: Path):
    with pytest.raises(SystemExit) as caught, log_to(tmp_path / "job.log"):
        raise ConfigError("change this")
    assert caught.value.code == 1
    text = (tmp_path / "job.log").read_text()
    assert "change this" in text
    assert "Traceback" not in text


def test_any_other_error_keeps_its_traceback_and_is_raised(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), log_to(tmp_path / "job.log"):
        _ = 1 / 0
    text = (tmp_path / "job.log").read_text()
    assert "Traceback" in text and "ZeroDivisionError" in text


@pytest.mark.parametrize("error", [None, ConfigError, ValueError, KeyboardInterrupt])
def test_logging_is_put_back(tmp_path: Path, error: type | None):
    root = logging.getLogger()
    before = (list(root.handlers), root.level, warnings.showwarning, list(warnings.filters))
    try:
        with log_to(tmp_path / "job.log"):
            assert len(root.handlers) == len(before[0]) + 2
            warnings.simplefilter("ignore")
            if error is not None:
                raise error("x")
    except (SystemExit, ValueError, KeyboardInterrupt):
        pass
    after = (list(root.handlers), root.level, warnings.showwarning, list(warnings.filters))
    assert after == before


def test_a_second_run_starts_a_new_log(tmp_path: Path):
    for word in ("one", "two"):
        with log_to(tmp_path / "job.log"):
            logging.getLogger("x").info(word)
    text = (tmp_path / "job.log").read_text()
    assert "two" in text and "one" not in text


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
