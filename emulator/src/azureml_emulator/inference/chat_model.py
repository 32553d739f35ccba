"""A chat model for MLflow: conversations in, replies out.

This file is part of every model that azureml-emulator's fine-tuning job leaves. It stands alone: it
needs mlflow, pandas, torch and transformers, and nothing of the emulator.

    model = mlflow.pyfunc.load_model(folder)
    asked = pandas.DataFrame({"input_string": [[{"role": "user", "content": "Hello"}]]})
    model.predict(asked, params={"max_new_tokens": 20})["output"][0]
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

ROLES = ("system", "user", "assistant")
BATCH = 8
"""Most conversations that are answered at once: each takes memory of its own."""


class ChatModel(PythonModel):  # type: ignore[misc]
    """Replies with what a causal language model adds to a conversation."""

    def load_context(self, context: Any) -> None:
        """Load the Hugging Face folder that the artifact ``weights`` names."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = context.artifacts["weights"]
        device, dtype = _hardware()
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, padding_side="left", local_files_only=True
        )
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        self._model = model.to(device).eval()
        self._context_length = int(model.config.max_position_embeddings)
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id}
        self._ends = sorted(end for end in ends if end is not None)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return a reply for each row of *model_input*, in the column ``output``.

        Args:
            context: Not used.
            model_input: A conversation in each row of ``input_string``: messages with ``role``
                and ``content``.
            params: ``max_new_tokens`` (1 or more), ``do_sample``, and for sampling ``temperature``
                (0 to 2; 0 does not sample) and ``top_p`` (above 0, at most 1).

        Raises:
            MlflowException: A conversation or a parameter is not acceptable, or a conversation is
                too long for the model.
        """
        chosen = _checked(params or {})
        prompts = [self._prompt(list(messages)) for messages in model_input["input_string"]]
        for number, prompt in enumerate(prompts):
            self._check_length(number, len(prompt), chosen["max_new_tokens"])
        replies: list[str] = []
        for start in range(0, len(prompts), BATCH):
            replies += self._generate(prompts[start : start + BATCH], chosen)
        return pd.DataFrame({"output": replies})

    def _prompt(self, messages: list[Any]) -> list[int]:
        from jinja2 import TemplateError

        if not messages:
            raise _refused("A conversation has no messages.")
        for message in messages:
            if message["role"] not in ROLES:
                raise _refused(
                    f"A message has the role {message['role']!r}, not one of {', '.join(ROLES)}."
                )
        try:
            text = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise _refused(f"The model's chat template refuses a conversation: {error}") from error
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return tokens

    def _check_length(self, number: int, tokens: int, new: int) -> None:
        if tokens + new > self._context_length:
            raise _refused(
                f"Conversation {number + 1} has {tokens} tokens and max_new_tokens is {new}: "
                f"together they may be at most {self._context_length}, the model's context length."
            )

    def _generate(self, prompts: list[list[int]], chosen: dict[str, Any]) -> list[str]:
        import torch

        batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        batch = batch.to(self._model.device)
        with torch.inference_mode():
            whole = self._model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                eos_token_id=self._ends,
                pad_token_id=self._tokenizer.pad_token_id,
                **chosen,
            )
        added = whole[:, batch["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(added, skip_special_tokens=True)
        return [text.strip() for text in texts]


def _hardware() -> tuple[str, Any]:
    """Return the device to compute on and the type of its numbers, as transformers takes them."""
    import torch

    if torch.cuda.is_available():
        return "cuda", "auto"
    able = torch.cpu.get_capabilities()
    # Without such instructions 16 bits are slower than 32.
    return "cpu", "auto" if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def _checked(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters for ``generate``, or refuse them."""
    new = int(params.get("max_new_tokens", 200))
    if new < 1:
        raise _refused(f"max_new_tokens is {new}: it must be 1 or more.")
    temperature, top_p = params.get("temperature", 1.0), params.get("top_p", 1.0)
    if not 0 <= temperature <= 2:
        raise _refused(f"temperature is {temperature:g}: it must be 0 to 2.")
    if not 0 < top_p <= 1:
        raise _refused(f"top_p is {top_p:g}: it must be above 0 and at most 1.")
    if not params.get("do_sample", False) or temperature == 0:
        # None: not what the folder's generation_config.json has for sampling.
        return {"max_new_tokens": new, "do_sample": False} | dict.fromkeys(
            ("temperature", "top_p", "top_k")
        )
    return {
        "max_new_tokens": new,
        "do_sample": True,
        "temperature": float(temperature),
        "top_p": float(top_p),
    }


def _refused(message: str) -> Exception:
    error: Exception = MlflowException.invalid_parameter_value(message)
    return error


set_model(ChatModel())
