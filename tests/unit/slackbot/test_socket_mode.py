"""What Socket Mode receives is checked without holding up acknowledgements."""

from __future__ import annotations

import importlib

from websocket import _utils


def test_the_text_of_frames_is_checked_in_c() -> None:
    """In Python that takes half of the time until a hundred people are acknowledged."""
    assert _utils.Utf8Validator is importlib.import_module("wsaccel.utf8validator").Utf8Validator
    assert _utils.validate_utf8("é".encode())
    assert not _utils.validate_utf8(b"\xc3\x28")
