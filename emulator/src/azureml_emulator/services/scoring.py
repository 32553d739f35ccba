"""The scoring URI of every endpoint: who may ask, which deployment answers, and how it fails.

Statuses as https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints
lists them: 401 for a key, 404 where no deployment has traffic, 424 for whatever the model itself
answers other than 200.
"""

from __future__ import annotations

import hmac
from typing import Any

from ..emulator import Applier, Emulator
from ..errors import NotFound, ServiceUnavailable, Unauthorized
from ..routing import Call, Reply, Route
from ..store import Document
from ..tokens import ML_AUDIENCE
from .serving import DEPLOYMENT, ENDPOINT, get_endpoint, state

_HEADER = "azureml-model-deployment"
# Any number without a common divisor with 100: requests that follow one another then go to
# different deployments, and 100 of them in a row keep to the percentages exactly.
_STRIDE = 61
# What the SDK asks a token for in the mode AADToken; it takes no notice of the cloud here.
_PUBLIC_ML_AUDIENCE = "https://ml.azure.com"


def score(emulator: Emulator, call: Call) -> Reply:
    """Let a deployment answer: the one that the header names, else by the traffic rules."""
    with emulator.store.transaction():
        endpoint = get_endpoint(emulator, call.params["endpoint"])
        _authenticate(emulator, call, endpoint)
        deployment = _choose(emulator, call, endpoint)
    if not deployment["_up"] or state(deployment) == "Deleting" or state(endpoint) == "Deleting":
        raise ServiceUnavailable(
            f"The deployment {deployment['name']} is not ready: it is {state(deployment)}."
        )
    headers = {_HEADER: deployment["name"]}
    if "reply" in call.effects:
        return Reply(_as_told(call.effects["reply"]), 200, headers)
    scored = emulator.scorer.score(deployment, call.body)
    if scored.status != 200:
        headers |= {
            "ms-azureml-model-error-statuscode": str(scored.status),
            "ms-azureml-model-error-reason": "model_error",
        }
        return Reply(scored.body, 424, headers)
    return Reply(scored.body, 200, headers)


def _authenticate(emulator: Emulator, call: Call, endpoint: Document) -> None:
    mode, now = endpoint["properties"]["authMode"], emulator.now()
    if mode == "AMLToken":
        emulator.tokens.check(call.headers, audiences={endpoint["id"].lower()}, now=now)
        return
    if mode == "AADToken":
        audiences = {ML_AUDIENCE, _PUBLIC_ML_AUDIENCE}
        emulator.tokens.check(call.headers, audiences=audiences, now=now)
        return
    scheme, _, key = call.headers.get("authorization", "").partition(" ")
    known = any(
        hmac.compare_digest(key.encode(), one.encode()) for one in endpoint["_keys"].values()
    )
    if scheme.lower() != "bearer" or not known:
        raise Unauthorized("key_auth_access_denied", code="Unauthorized")


def _choose(emulator: Emulator, call: Call, endpoint: Document) -> Document:
    deployments = {
        one["name"].lower(): one for one in emulator.store.list(DEPLOYMENT, parent=endpoint["id"])
    }
    named = call.headers.get(_HEADER)
    if named is not None:
        if named.lower() not in deployments:
            raise NotFound(f"The endpoint {endpoint['name']} has no deployment {named}.")
        return deployments[named.lower()]
    place = endpoint["_requests"] * _STRIDE % 100
    endpoint["_requests"] += 1
    emulator.store.put(ENDPOINT, endpoint["id"], endpoint, parent=endpoint["id"].rsplit("/", 2)[0])
    for name, percent in endpoint["properties"]["traffic"].items():
        if place < percent:
            return deployments[name.lower()]
        place -= percent
    raise NotFound(
        f"The endpoint {endpoint['name']} doesn't have any valid deployment with positive weight."
    )


def _as_told(reply: Any) -> Any:
    return reply.encode() if isinstance(reply, str) else reply


ROUTES = [Route("POST", "/score/{endpoint}/score", score, auth="own", exclusive=False)]
EVENTS: dict[str, Applier] = {}
