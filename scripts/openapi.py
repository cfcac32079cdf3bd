"""Writes web/openapi.json, from which the front end's wire types are generated."""

import json
from pathlib import Path

from neuralmine.server.app import make_app

if __name__ == "__main__":
    document = json.dumps(make_app().openapi(), indent=1, sort_keys=True)
    (Path(__file__).parents[1] / "web" / "openapi.json").write_text(document + "\n")
