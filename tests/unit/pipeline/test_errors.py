"""What a message may quote: no terminal code, no forged line, no password."""

from __future__ import annotations

import pytest

from pipeline.errors import printable, without_passwords


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain, é, 視頻, 👍", "plain, é, 視頻, 👍"),
        ("no\N{NO-BREAK SPACE}break\N{IDEOGRAPHIC SPACE}wide", "no\xa0break\u3000wide"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),  # the same code in one character
        ("cod\u202egpj.exe", "cod\\u202egpj.exe"),  # turns the writing direction
        ("\u2066\u200b\u2028", "\\u2066\\u200b\\u2028"),
        ("clip\udcff.mp4", "clip\\udcff.mp4"),  # a byte that is no UTF-8, as the system gives it
        (OSError(2, "no such file", "a\nb"), "[Errno 2] no such file: 'a\\nb'"),
    ],
)
def test_what_a_terminal_would_not_show_is_escaped(raw, shown):
    assert printable(raw) == shown


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("sftp://me:hunter2@host/store", "sftp://me:***@host/store"),
        ("at 'ftp://me:p@ss:w/rd@host:21/x': no", "at 'ftp://me:***@host:21/x': no"),
        ("s3://KEY:sec/ret+@bucket/a", "s3://KEY:***@bucket/a"),
        ("https://ghp_abc@host/x", "https://***@host/x"),
        ("https://h/x?X-Amz-Signature=ab12&part=1", "https://h/x?X-Amz-Signature=***&part=1"),
        ("https://h/x?sv=2&sig=a%2Bb#top", "https://h/x?sv=2&sig=***#top"),
        ("https://h/x?access_token=1,&api-key=2", "https://h/x?access_token=***&api-key=***"),
    ],
)
def test_passwords_and_keys_do_not_show(raw, shown):
    assert without_passwords(raw) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/stores/ssv2",
        "http://host:8265/a@b",
        "ray at host:6379",
        "sftp://me@host/store",
        "a:b@c",
        "https://h/x?part=1&page=2",
        "label 12: expected 3 at most",
    ],
)
def test_what_holds_no_password_stays(text):
    assert without_passwords(text) == text
