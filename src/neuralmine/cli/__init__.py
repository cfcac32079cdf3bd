"""The command line: neuralmine networks | layers | lenses | look | train | runs | report | serve."""

from __future__ import annotations

import sys

from ..errors import NeuralmineError, UsageError


def main() -> None:
    """Run the command line; exit code 0, 1 (asked for and failed) or 2 (usage)."""
    from .commands import app

    try:
        app(standalone_mode=True)
    except NeuralmineError as error:
        print(f"neuralmine: {error.what}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("neuralmine: stopped.", file=sys.stderr)
        sys.exit(130)
