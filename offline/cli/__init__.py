"""The command line `modeguard`: options, what a command prints, exit statuses; the work itself is done in other rooms.

`app` has the table of commands, `COMMANDS`, and says how to add one. A command's module is imported only when that
command is asked for, so nothing here may import torch, or what imports it, on behalf of all commands.
"""

from modeguard.offline.cli.app import COMMANDS, app, load_command, main
from modeguard.offline.cli.extras import OF_BUILD

__all__ = ["COMMANDS", "OF_BUILD", "app", "load_command", "main"]
