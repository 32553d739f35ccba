"""The HTTP server of a deployment's container, after azureml-inference-server-http.

``GET /`` answers ``Healthy``: the server listens only once the model is loaded, so that it is alive
and ready at once. ``POST /score`` answers with the model; one request is worked on at a time.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from mlflow.exceptions import MlflowException
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .bodies import BadBodyError, read_question, write_answer

_OF_THE_CALLER = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")

logger = logging.getLogger("azmlinfsrv")


def serve(model: Any, port_file: Path) -> None:
    """Answer with *model* until the process ends.

    Args:
        model: What ``mlflow.pyfunc.load_model`` gave.
        port_file: Where the port on 127.0.0.1 is written, whole, when it is open.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        port = listening.getsockname()[1]
        part = port_file.with_suffix(".part")
        part.write_text(str(port), encoding="ascii")
        part.rename(port_file)
        logger.info("Listening at: http://127.0.0.1:%s", port)
        config = uvicorn.Config(
            app(model), log_config=None, access_log=False, lifespan="off", ws="none"
        )
        uvicorn.Server(config).run(sockets=[listening])


def app(model: Any) -> Starlette:
    """Return the ASGI application that answers with *model*."""
    alone = threading.Lock()

    def answer(body: bytes) -> Response:
        began = time.monotonic()
        try:
            question = read_question(body, model.metadata)
            with alone:
                prediction = model.predict(question.rows, params=question.params)
            said = write_answer(prediction, single=question.single)
        except BadBodyError as error:
            return _refusal(400, "BadArgument", str(error))
        except MlflowException as error:
            if error.error_code not in _OF_THE_CALLER:
                return _failure(error)
            # Past mlflow's print of the data, which a log should not hold.
            return _refusal(400, "BadArgument", error.message.rpartition("Error: ")[2])
        except Exception as error:
            return _failure(error)
        milliseconds = (time.monotonic() - began) * 1000
        logger.info("POST /score 200 %d ms, rows: %d", milliseconds, len(question.rows))
        return Response(said, 200, media_type="application/json")

    async def score(request: Request) -> Response:
        return await run_in_threadpool(answer, await request.body())

    async def alive(request: Request) -> Response:
        return PlainTextResponse("Healthy")

    return Starlette(routes=[Route("/", alive), Route("/score", score, methods=["POST"])])


def _failure(error: Exception) -> Response:
    logger.error("The model failed", exc_info=error)
    return _refusal(500, "ModelError", f"The model failed: {type(error).__name__}: {error}")


def _refusal(status: int, code: str, message: str) -> Response:
    logger.info("POST /score %d %s", status, message)
    body = {"error": {"code": code, "message": message}}
    return Response(json.dumps(body).encode(), status, media_type="application/json")
