"""The container of a step: ``python -m azureml_emulator.training REQUEST.json``.

It exits with 0 when the step is done, and with 1 after a ``failed`` event. Any other end is a
crash.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from ..processes import exit_with_parent
from .failures import explain
from .request import Events, read_request

STEPS = ("validation", "model_import", "preprocess", "finetune", "convert")


def main(path: Path) -> int:
    """Do the step that the file *path* asks for."""
    request = read_request(path)
    assert request.step in STEPS, request.step
    events = Events(request.events)
    try:
        import_module(f".{request.step}", __package__).run(request, events)
    except Exception as error:
        sentence = explain(error, request)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        events.failed(sentence)
        return 1
    return 0


if __name__ == "__main__":
    exit_with_parent()
    sys.exit(main(Path(sys.argv[1])))
