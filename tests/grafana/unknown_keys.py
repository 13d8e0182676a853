"""Prints the keys of a dashboard that Grafana's own model does not know, one a line.

    unknown_keys.py FILE

The model reads what it knows and writes that again, so what is missing then is unknown to it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(given, read, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(read, dict):
        for key, part in given.items():
            if key in read:
                yield from differences(part, read[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, (part, read_part) in enumerate(zip(given, read)):
            yield from differences(part, read_part, f"{path}[{index}]")
    elif given != read:
        yield path


plugins.register_default_plugins()
dashboard = json.loads(Path(sys.argv[1]).read_text())
read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
for difference in differences(dashboard, read, "$"):
    print(difference)
