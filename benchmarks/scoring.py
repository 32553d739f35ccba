"""``make bench``: a reply through the emulator's endpoint beside a bare transformers ``generate``.

The same model, question and number of tokens, greedily, on the same number of threads and in turn:
one reply through TLS, authentication, the deployment's gate, its container and mlflow, then one by
``generate`` in this process, template and tokenizer included. What the endpoint adds does not grow
with the reply, so the ratio is the worse the smaller the model. The time until the deployment is
ready, from the PUT that creates it, is told beside.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
from azureml_emulator.emulator import Emulator
from azureml_emulator.server import Server
from azureml_emulator.settings import WORKSPACE_ID, Settings, default_cache
from azureml_emulator.weights import materialize

from benchmarks.table import print_ratios

MODELS = {"tiny": "tiny-phi3-stand-in", "smollm2": "SmolLM2-135M-Instruct"}
REPEATS = {"tiny": 40, "smollm2": 10}
TOKENS = 12
QUESTION = [{"role": "user", "content": "Who repairs the umbrellas in Port Marmalade, and why?"}]
BARE, ENDPOINT = "transformers generate", "the endpoint"

Ask = Callable[[], str]


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description="Seconds to a reply through an endpoint.")
    parser.add_argument("--model", choices=sorted(MODELS), default="tiny")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="of converted weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    chosen = parser.parse_args()
    # As in a container, and before torch is imported.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    cache = chosen.cache.resolve()
    # Before the emulator starts, so that no conversion counts as the deployment's.
    folder = materialize(chosen.model, cache)
    with endpoint(chosen.model, cache) as (through, ready):
        figures = measure({BARE: bare(chosen.model, folder), ENDPOINT: through}, chosen.model)
    show(figures, chosen.model, ready)
    if chosen.json:
        kept = {"ready_seconds": ready, "reply_seconds": figures}
        chosen.json.write_text(json.dumps(kept, indent=2), encoding="utf-8")


@contextmanager
def endpoint(model: str, cache: Path) -> Iterator[tuple[Ask, float]]:
    """Deploy *model* on an emulator; give a function that asks it, and the seconds until ready."""
    with tempfile.TemporaryDirectory(prefix="scoring-bench-") as folder:
        emulator = Emulator(Settings(Path(folder) / "state", cache=cache))
        with Server(emulator) as server, requests.Session() as session:
            session.trust_env = False
            session.verify = str(emulator.certificates.bundle)
            token = emulator.tokens.issue(server.url, now=emulator.now())

            def arm(method: str, path: str, body: Any = None) -> Any:
                url = path if path.startswith("https:") else f"{server.url}{WORKSPACE_ID}/{path}"
                query = "" if "?" in url else "?api-version=2023-04-01-preview"
                headers = {"Authorization": f"Bearer {token}"}
                answer = session.request(method, url + query, json=body, headers=headers)
                answer.raise_for_status()
                return answer

            online = {"location": "eastus2", "properties": {"authMode": "Key"}}
            arm("PUT", "onlineEndpoints/bench", online)
            begun = time.perf_counter()
            operation = arm("PUT", "onlineEndpoints/bench/deployments/demo", deployment(model))
            polled = operation.headers["Azure-AsyncOperation"]
            while (found := arm("GET", polled).json())["status"] == "InProgress":
                time.sleep(0.1)
            assert found["status"] == "Succeeded", found
            ready = time.perf_counter() - begun
            key = arm("POST", "onlineEndpoints/bench/listKeys").json()["primaryKey"]
            headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "demo"}
            data = {"input_string": QUESTION, "parameters": {"max_new_tokens": TOKENS}}

            def ask() -> str:
                url, body = f"{server.url}/score/bench/score", {"input_data": data}
                answer = session.post(url, json=body, headers=headers)
                answer.raise_for_status()
                return str(answer.json()["output"])

            yield ask, ready


def deployment(model: str) -> dict[str, Any]:
    """Return the body of the PUT that deploys *model*."""
    return {
        "location": "eastus2",
        "sku": {"name": "Default", "capacity": 1},
        "properties": {
            "endpointComputeType": "Managed",
            "instanceType": "Standard_NC4as_T4_v3",
            "model": f"azureml://registries/azureml/models/{MODELS[model]}/versions/1",
            "requestSettings": {"requestTimeout": "PT180S"},
        },
    }


def bare(model: str, folder: Path) -> Ask:
    """Return a function that asks the model in *folder* with nothing but transformers."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if model == "tiny":
        torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    causal = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()

    def ask() -> str:
        prompt = tokenizer.apply_chat_template(
            QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            whole = causal.generate(**prompt, max_new_tokens=TOKENS, do_sample=False)
        added = whole[0, prompt["input_ids"].shape[1] :]
        return str(tokenizer.decode(added, skip_special_tokens=True)).strip()

    return ask


def measure(ways: dict[str, Ask], model: str) -> dict[str, list[float]]:
    """Return the seconds of each reply, each way in turn, once both have answered alike."""
    replies = {ask() for ask in ways.values()}
    assert len(replies) == 1, replies
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS[model]):
        for name, ask in ways.items():
            begun = time.perf_counter()
            ask()
            figures[name].append(time.perf_counter() - begun)
    return figures


def show(figures: dict[str, list[float]], model: str, ready: float) -> None:
    """Print the table."""
    print_ratios(
        figures,
        title=f"{MODELS[model]}: milliseconds to a reply of {TOKENS} tokens at most",
        caption=f"torch {version('torch')}, transformers {version('transformers')}, mlflow-skinny "
        f"{version('mlflow-skinny')}. The deployment was ready after {ready:.1f} s. In "
        "parentheses: ratio to generate.",
        reference=BARE,
        best_of=min,
        shown=lambda seconds: f"{seconds * 1000:.0f}",
    )


if __name__ == "__main__":
    main()
