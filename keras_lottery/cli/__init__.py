"""The command line: `keras-lottery find` and others; `scripts/` only call it.

Each command is a module with `HELP` and `add_options(parser)`, which also sets the
function that the command runs.
"""

from collections.abc import Sequence
from types import ModuleType

from keras_lottery.cli import benchmark as benchmark_command
from keras_lottery.cli import deploy as deploy_command
from keras_lottery.cli import find as find_command
from keras_lottery.cli import merge as merge_command
from keras_lottery.cli import prune as prune_command
from keras_lottery.cli import report
from keras_lottery.cli import reproduce as reproduce_command
from keras_lottery.cli.parsing import Parser, run

COMMANDS: dict[str, ModuleType] = {
    "benchmark": benchmark_command,
    "deploy": deploy_command,
    "find": find_command,
    "merge": merge_command,
    "prune": prune_command,
    "report": report,
    "reproduce": reproduce_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the installed command `keras-lottery`."""
    parser = Parser(
        prog="keras-lottery",
        description="Lottery tickets and pruning for Keras 3.",
        epilog="`keras-lottery COMMAND --help` explains a command.",
    )
    parser.set_defaults(function=lambda options: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="command")
    for name, command in COMMANDS.items():
        description = f"{command.HELP[0].upper()}{command.HELP[1:]}."
        command.add_options(
            commands.add_parser(name, help=command.HELP, description=description)
        )
    return run(parser, arguments)


def find(arguments: Sequence[str] | None = None) -> int:
    """Runs `scripts/find_ticket.py`."""
    return _alone("find_ticket.py", find_command, arguments)


def reproduce(arguments: Sequence[str] | None = None) -> int:
    """Runs `scripts/reproduce.py`."""
    return _alone("reproduce.py", reproduce_command, arguments)


def _alone(name: str, command: ModuleType, arguments: Sequence[str] | None) -> int:
    parser = Parser(prog=name, description=command.HELP)
    command.add_options(parser)
    return run(parser, arguments)
