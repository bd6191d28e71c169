"""What schemathesis is told of a server beside its document: ids that are there, for every other request, and a model
that answers. It loads this file by `SCHEMATHESIS_HOOKS`; the ids stand in `JOULEBOX_IDS`."""

import json
import os
from typing import Any

import schemathesis

IDS: dict[str, str] = json.loads(os.environ.get("JOULEBOX_IDS", "{}"))


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Half of the made-up ids become real ones."""
    if not isinstance(path_parameters, dict):
        return path_parameters
    return {
        name: IDS[name] if name in IDS and len(str(value)) % 2 else value for name, value in path_parameters.items()
    }


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Most names of models become that of one which answers."""
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) != 3:
        return body | {"model": IDS["model_id"]}
    return body
