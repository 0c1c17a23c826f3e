"""Groups of commands in which the commonest ones need no word."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class ListOrShowGroup(TyperGroup):
    """A group that lists when nothing is named, and shows what is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: click's Context
        """Put in the sub-command that was left out."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        elif not args[0].startswith("-") and args[0] not in self.commands:
            args = ["show", *args]
        return super().parse_args(ctx, args)
