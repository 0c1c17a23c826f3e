"""What a shell leaves of the words of a command line.

Katib joins the words of a trial's program with blanks and hands them to `sh -c`. Its templates for
architecture searches therefore quote what may hold blanks, as in `--architecture="[[3], [1, 0]]"`,
and those quotes must not reach the program. Here no shell is started: quotes that keep one word
together are taken off, and what only a shell could carry out stays as it is written.

Source: katib v0.19 `webhook/v1beta1/pod/utils.go` (wrapWorkerContainer).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHELLS = ("sh", "bash")
_PART = re.compile(r"""'([^']*)'|"((?:[^"\\$`]|\\.)*)"|\\(.)""", re.DOTALL)
_ESCAPED = re.compile(r'\\([\\"$`])')
_ACTIVE = re.compile(r"""[|&;<>()$`\s'"\\]""")
"""What, outside of quotes, makes of a word more than a word."""


def is_shell_script(command: Sequence[str]) -> bool:
    """Whether a command is a shell's script already, which Katib hands on as it is."""
    return len(command) > 1 and command[0] in _SHELLS and command[1] == "-c"


def unquote(word: str) -> str:
    """The word as a program gets it from the shell; unchanged where the shell would do more."""
    if _ACTIVE.search(_PART.sub("", word)):
        return word
    return _PART.sub(lambda part: part[1] or part[3] or _ESCAPED.sub(r"\1", part[2] or ""), word)
