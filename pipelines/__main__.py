"""`python -m pipelines --config FILE`: prepare, train, evaluate and export in one go.

`python -m pipelines compare`: several networks through all of it, and a page about them.
"""

import sys

from pipelines.command import command
from pipelines.config import CompareConfig, WorkflowConfig

_compare = command(CompareConfig, "pipelines.comparison:compare", "compare")
_workflow = command(WorkflowConfig, "pipelines.workflow:run")


def main(argv: list[str] | None = None) -> int:
    """The exit status of one or the other."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["compare"]:
        return _compare(arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        print(f"error: no subcommand {arguments[0]!r}; compare, or --config FILE", file=sys.stderr)
        return 2
    return _workflow(arguments)


if __name__ == "__main__":
    sys.exit(main())
