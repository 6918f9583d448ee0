import io
import logging

import pytest
from rich.console import Console

from sottovoce.data.check_corpus import shown_rows


def test_a_terminal_shows_a_bar_that_counts_the_rows():
    drawn = io.StringIO()
    with shown_rows(3, console=Console(file=drawn, force_terminal=True, width=80)) as progress:
        for _ in range(3):
            progress.advance()
    assert "3/3" in drawn.getvalue()


def test_a_log_gets_a_line_with_rows_done_of_rows(caplog: pytest.LogCaptureFixture):
    quiet = Console(file=io.StringIO(), force_terminal=False)
    with caplog.at_level(logging.INFO), shown_rows(4, console=quiet, interval_s=0.0) as progress:
        for _ in range(3):
            progress.advance()
    lines = ["checking 4 rows", "checked 2 of 4 rows", "checked 3 of 4 rows"]
    assert [message.split(",")[0] for message in caplog.messages] == lines


def test_a_short_preparation_logs_no_rate(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO), shown_rows(1, console=Console(file=io.StringIO())) as progress:
        progress.advance()
    assert caplog.messages == ["checking 1 rows"]
