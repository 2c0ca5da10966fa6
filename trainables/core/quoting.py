"""What people and programs read, so that no value can say more than it is: one way for terminals,
one for spreadsheets.

A terminal obeys escape sequences, and a spreadsheet runs what begins like a formula. Names, reasons
and labels come from files of others, so both go through here.
"""

import re
from typing import Any

# With the wide forms of = + - @, which some spreadsheets take for the same.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: object) -> str:
    r"""`text` on one line: line breaks, control and broken characters as escapes such as \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def for_spreadsheet(value: Any) -> Any:
    """Text that a spreadsheet would run, with an apostrophe in front; numbers, and text that is
    one, as they are.

    Text that begins with apostrophes and then like a formula gets one more, so that removing one
    gives every text back.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
