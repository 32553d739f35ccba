"""Asking a deployed model: one held-out conversation in, the model's reply out.

Not through the SDK's ``invoke``, which keeps the endpoint's key and the deployment's name in one
header dictionary for the whole process. Here each connection has its own session and key, and the
key lives no longer than the connection.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lifecycle.azure import scrubbed, translated
from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.errors import DatasetError, ScoringError
from lifecycle.plain import Result
from lifecycle.waiting import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    import requests

Request = dict[str, Any]
Ask = Callable[[Request], str]

_PARAMETERS = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "max_new_tokens": 200}
_CONNECT_SECONDS = 10.0
_PAUSES = (1.0, 2.0, 4.0)
_LONGEST_PAUSE = 30.0
_EXCERPT = 200

# A request that timed out (408, 504) is not in this list: the model may still be at work on it,
# and asking again doubles its load (azure-sdk-for-python#36296). A 404 is: right after a
# deployment the route may not be there yet (azure-dev#4037).
_WORTH_ANOTHER_TRY = frozenset({404, 429, 500, 502, 503})
_MODEL_STATUS = "ms-azureml-model-error-statuscode"
_MODEL_IS_BUSY = frozenset({"429", "503"})

logger = logging.getLogger(__name__)


class Message(Result):
    """One turn of a conversation."""

    role: str = Field(title="Role", description="`system`, `user` or `assistant`.")
    content: str = Field(title="Content", description="What was said.")


class Conversation(Result):
    """A held-out conversation up to its last user turn, and the answer that followed."""

    messages: list[Message] = Field(title="Messages", description="The last one is the user's.")
    reference: str = Field(title="Reference", description="The answer that the data set has.")

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


def pick_conversations(file: Path, count: int, seed: int) -> list[Conversation]:
    """Pick up to ``count`` different conversations of a split at random.

    Args:
        file: JSON lines or Parquet, each row with ``messages``; rows whose last user turn has no
            answer after it are passed over.
        count: How many, 1 or more; fewer where the file has no more.
        seed: Equal seeds pick the same ones in the same order.

    Raises:
        DatasetError: The file is not there, a row of it is not JSON, or none of them will do.
    """
    picked: list[Conversation] = []
    for row in _shuffled_rows(file, seed):
        conversation = _conversation(row)
        if conversation is not None:
            picked.append(conversation)
        if len(picked) == count:
            break
    if not picked:
        raise DatasetError(
            f"{file.name} has no conversation whose last user turn is answered.",
            where=str(file),
            remedy="Choose a dataset.generation_split that holds whole conversations.",
        )
    return picked


def build_request(messages: Sequence[Message]) -> Request:
    """Build the scoring request for one conversation, as the Azure ML tutorial does.

    Args:
        messages: The conversation up to its last user turn.

    Source: azureml-examples, ``finetune/chat-completion/chat-completion.ipynb``, step 8.
    """
    return {
        "input_data": {
            "input_string": [[message.model_dump() for message in messages]],
            "parameters": dict(_PARAMETERS),
        },
        "params": {},
    }


def invoke(
    ref: WorkspaceRef,
    endpoint_name: str,
    deployment: str | None,
    request: Request,
    timeout_seconds: float,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """Send one request to the endpoint and return the model's reply.

    Args and errors are those of :func:`connection`.
    """
    with connection(ref, endpoint_name, deployment, timeout_seconds, clock=clock) as ask:
        return ask(request)


@contextmanager
def connection(
    ref: WorkspaceRef,
    endpoint_name: str,
    deployment: str | None,
    timeout_seconds: float,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> Iterator[Ask]:
    """Open a connection to the endpoint; the function it gives sends one request at a time.

    Throttling, outages and a route that is not there yet are tried again a few times, no request
    that timed out ever is.

    Args:
        ref: The workspace.
        endpoint_name: The endpoint; its key is fetched now and forgotten at the end.
        deployment: The deployment to ask, past the traffic rules; None to let them decide.
        timeout_seconds: What the deployment allows one request.
        clock: Whose time passes between tries.

    Raises:
        ScoringError: The endpoint has no address or key, answered with an error or not at all,
            or its answer holds no reply.
        ServiceError: Azure did not give the address or the key.
    """
    import requests

    client = ml_client(ref)
    with translated(f"reading the address and key of {endpoint_name}", where=endpoint_name):
        url = client.online_endpoints.get(endpoint_name).scoring_uri
        key = getattr(client.online_endpoints.get_keys(endpoint_name), "primary_key", None)
    if not url or not key:
        raise ScoringError("The endpoint has no address or no key.", where=endpoint_name)

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, so that an entry in ~/.netrc cannot take the key's place.
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    with requests.Session() as session:
        session.auth = sign
        if deployment:
            session.headers["azureml-model-deployment"] = deployment
        yield _Line(session, url, key, endpoint_name, timeout_seconds, clock).ask


def extract_reply(body: Any) -> str | None:
    """Return the reply in an answer of any shape that chat models on Azure ML give, or None.

    ``{"output": "…"}`` (foundation models), ``["…"]`` and ``"…"`` (MLflow chat completion), and
    ``{"choices": [{"message": {"content": "…"}}]}`` (the OpenAI shape).
    """
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if isinstance(body, dict) and "choices" in body:
        try:
            body = body["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            return None
    if isinstance(body, dict):
        body = body.get("output")
    return body if isinstance(body, str) else None


def _shuffled_rows(file: Path, seed: int) -> Iterator[Any]:
    """Yield a file's rows in a random order, with few of them in memory at a time."""
    if file.suffix != ".parquet":
        for offset, line in _shuffled_lines(file, seed):
            yield _row(file, offset, line)
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        sizes = (parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups))
        places = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
        random.Random(seed).shuffle(places)  # noqa: S311
        for group, row in places:
            yield parquet.read_row_group(group).slice(row, 1).to_pylist()[0]


def _shuffled_lines(file: Path, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield a file's lines in a random order, with one of them in memory at a time."""
    try:
        with file.open("rb") as stream:
            starts = [0]
            for line in stream:
                starts.append(starts[-1] + len(line))
            starts.pop()
            random.Random(seed).shuffle(starts)  # noqa: S311
            for start in starts:
                stream.seek(start)
                yield start, stream.readline()
    except OSError as error:
        raise DatasetError(f"{file.name} cannot be read: {error}", where=str(file)) from error


def _row(file: Path, offset: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DatasetError(
            f"The row at byte {offset} of {file.name} is not JSON: {error}", where=str(file)
        ) from error


def _conversation(row: Any) -> Conversation | None:
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list):
        return None
    try:
        messages = [Message(role=turn["role"], content=turn["content"]) for turn in turns]
    except (KeyError, TypeError, ValueError):
        return None
    asked = max((i for i, turn in enumerate(messages) if turn.role == "user"), default=-1)
    answer = messages[asked + 1 : asked + 2]
    if asked < 0 or not answer or answer[0].role != "assistant":
        return None
    return Conversation(messages=messages[: asked + 1], reference=answer[0].content)


class _TryAgainError(Exception):
    """Raised inside :class:`_Line` when the same request may be answered the next time."""

    def __init__(self, problem: ScoringError, after: str | None = None) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.after = after


@dataclass(frozen=True)
class _Line:
    """One open connection; what it raises never holds the key."""

    session: requests.Session
    url: str
    key: str
    endpoint_name: str
    timeout_seconds: float
    clock: Clock

    def ask(self, request: Request) -> str:
        pauses = iter(_PAUSES)
        while True:
            try:
                return self._ask_once(request)
            except _TryAgainError as again:
                pause = next(pauses, None)
                if pause is None:
                    raise again.problem from None
                logger.info("%s: %s Trying again.", self.endpoint_name, again.problem.message)
                self.clock.sleep(_pause(pause, again.after))

    def _ask_once(self, request: Request) -> str:
        import requests

        try:
            answer = self.session.post(
                self.url,
                json=request,
                timeout=(_CONNECT_SECONDS, self.timeout_seconds),
                allow_redirects=False,
            )
        except requests.ReadTimeout:
            problem: ScoringError | _TryAgainError = self._problem(
                f"No answer within {self.timeout_seconds:g} seconds.",
                remedy="Raise endpoint.request_timeout_seconds, or choose a larger instance type.",
            )
        except requests.RequestException as error:
            problem = _TryAgainError(
                self._problem(
                    f"The endpoint could not be reached: {self._excerpt(str(error))}",
                    remedy="Check the network, the proxy and the certificates.",
                )
            )
        else:
            if answer.status_code == requests.codes.ok:
                return self._reply(answer)
            problem = self._refusal(answer)
        # Raised here, past the except: what requests raises carries the request, and that the key.
        raise problem

    def _refusal(self, answer: requests.Response) -> ScoringError | _TryAgainError:
        model = answer.headers.get(_MODEL_STATUS)
        by_model = f" (the model itself: {model})" if model else ""
        problem = self._problem(
            f"The endpoint answered {answer.status_code}{by_model}: {self._excerpt(answer.text)}",
            status=answer.status_code,
        )
        if answer.status_code in _WORTH_ANOTHER_TRY or model in _MODEL_IS_BUSY:
            return _TryAgainError(problem, answer.headers.get("Retry-After"))
        return problem

    def _reply(self, answer: requests.Response) -> str:
        try:
            reply = extract_reply(answer.json())
        except ValueError:
            # As from a proxy, or a server that is just starting.
            problem = self._problem(
                f"The answer is not JSON: {self._excerpt(answer.text)}", status=answer.status_code
            )
            raise _TryAgainError(problem) from None
        if reply is None:
            raise self._problem(
                f"The answer holds no reply: {self._excerpt(answer.text)}",
                status=answer.status_code,
            )
        return reply

    def _problem(
        self, message: str, *, status: int | None = None, remedy: str | None = None
    ) -> ScoringError:
        return ScoringError(message, status=status, where=self.endpoint_name, remedy=remedy)

    def _excerpt(self, text: str) -> str:
        line = " ".join(scrubbed(text.replace(self.key, "***")).split()) or "(nothing)"
        return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 1]}…"


def _pause(ours: float, asked_for: str | None) -> float:
    """Return the seconds to wait: what ``Retry-After`` asks for, within bounds, or our own."""
    try:
        asked = float(asked_for or ours)
    except ValueError:
        return ours
    return min(max(asked, 0.0), _LONGEST_PAUSE) if math.isfinite(asked) else ours
