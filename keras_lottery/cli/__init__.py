"""The command line: `keras-lottery find` and its kin; `scripts/` only call it.

Each command is a module with `HELP` and `add_options(parser)`, which sets what it runs.
"""

from collections.abc import Sequence
from types import ModuleType

from keras_lottery.cli import find as find_command
from keras_lottery.cli import report
from keras_lottery.cli.parsing import Parser, run

COMMANDS: dict[str, ModuleType] = {"find": find_command, "report": report}


def main(arguments: Sequence[str] | None = None) -> int:
    """The installed command `keras-lottery`."""
    parser = Parser(prog="keras-lottery", description="Lottery tickets for Keras 3.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        command.add_options(commands.add_parser(name, help=command.HELP))
    return run(parser, arguments)


def find(arguments: Sequence[str] | None = None) -> int:
    """`scripts/find_ticket.py`."""
    parser = Parser(prog="find_ticket.py", description=find_command.HELP)
    find_command.add_options(parser)
    return run(parser, arguments)
