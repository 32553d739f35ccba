"""The container of a deployment: ``python -m azureml_emulator.inference REQUEST.json``.

It exits with 1, the reason in the last line of its log, where the model cannot be served.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ..processes import exit_with_parent
from .loading import LoadError, load
from .request import read_request

logger = logging.getLogger("azmlinfsrv")


def main(path: Path) -> int:
    """Serve the model that the file *path* names."""
    request = read_request(path)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(levelname).1s [%(process)d] %(name)s - %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        stream=sys.stdout,
    )
    logger.info("Model %s:%s", request.name, request.version)
    logger.info("Invoking user's init function")
    try:
        model = load(request)
    except LoadError as error:
        logger.error("%s", error)
        return 1
    # The words of azureml-inference-server-http, which people look for.
    logger.info("Users's init has completed successfully")
    # Here: it is of no use before, and the log begins the sooner.
    from .server import serve

    serve(model, request.port)
    return 0


if __name__ == "__main__":
    exit_with_parent()
    sys.exit(main(Path(sys.argv[1])))
