"""The third step, *preprocess*: conversations become tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from . import encoding, parameters
from .conversations import Messages, bad_row, conversations, split_path
from .request import Events, Request, StepFailed

INFO = "encoding.json"
HELD_OUT_OF = 5
"""One row in so many is held out for validation where no validation file is given."""

Rows = Iterable[tuple[int, Messages]]


def run(request: Request, events: Events) -> None:
    """Leave the encoded rows of ``train`` and ``validation`` in ``output_dir``.

    Raises:
        StepFailed: The model's tokenizer does not fit, or no row is left.
    """
    training = parameters.read(request.parameters)
    base, target = request.upstream["model_selector_output"], request.outputs["output_dir"]
    tokenizer = load_tokenizer(base)
    length = _length(training.max_seq_length, tokenizer, base)
    info: dict[str, Any] = {
        "max_seq_length": length,
        "pad_to_max_length": training.pad_to_max_length,
        "pad_token_id": _pad_token(tokenizer),
    }
    for split, path, rows in _splits(request):
        encoder = encoding.Encoder(tokenizer, max_length=length)
        for batch in _batches(rows, training.batch_size):
            encoder.add(*_rendered(tokenizer, path, batch))
        encoded = encoder.encoded()
        print(
            f"{split}: {len(encoded)} rows, {len(encoded.tokens)} tokens, {encoded.answers.sum()} "
            f"of them answers; {encoder.truncated} rows cut at {length} tokens, {encoder.dropped} "
            f"dropped because no answer was left"
        )
        if not len(encoded):
            raise StepFailed(
                f"No row of {path.name} has an answer within its first {length} tokens: raise "
                f"max_seq_length."
            )
        encoding.save(encoded, target, split)
        info[split] = {"rows": len(encoded), "longest": encoded.longest}
    (target / INFO).write_text(json.dumps(info, indent=2), encoding="utf-8")
    print("Encoded data written")


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of the Hugging Face folder, which must fit chats.

    Raises:
        StepFailed: It has no chat template, or cannot tell where in the text a token is.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.chat_template is None:
        raise StepFailed(
            "The base model has no chat template, so it cannot be trained on chats: take an "
            "instruction-tuned model, or add chat_template.jinja to its folder."
        )
    if not tokenizer.is_fast:
        raise StepFailed(
            "The base model has a slow tokenizer only, which cannot tell answers from questions: "
            "add its tokenizer.json to the folder."
        )
    return tokenizer


def _length(asked: int, tokenizer: Any, base: Path) -> int:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    # A tokenizer without a limit has one of 10**30.
    most = min(tokenizer.model_max_length, text.get("max_position_embeddings", 10**30))
    if asked > most:
        print(f"max_seq_length {asked} is more than the model's {most}, which is used")
    return int(most if asked == -1 else min(asked, most))


def _pad_token(tokenizer: Any) -> int:
    token = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if token is None else token)


def _splits(request: Request) -> Iterator[tuple[str, Path, Rows]]:
    train, validation = split_path(request, "train"), split_path(request, "validation")
    assert train is not None
    if validation is not None:
        yield "train", train, conversations(train)
        yield "validation", validation, conversations(validation)
        return
    rows = sum(1 for _ in conversations(train))
    kept = rows - rows // HELD_OUT_OF
    print(f"{rows - kept} of {rows} rows of train are held out for validation")
    yield "train", train, islice(conversations(train), kept)
    if kept < rows:
        yield "validation", train, islice(conversations(train), kept, None)


def _batches(rows: Rows, size: int) -> Iterator[list[tuple[int, Messages]]]:
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


def _rendered(
    tokenizer: Any, path: Path, batch: list[tuple[int, Messages]]
) -> tuple[list[str], list[list[encoding.Span]]]:
    from jinja2 import TemplateError

    def render(messages: Messages, generation: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation
            )
        )

    texts, spans = [], []
    for number, messages in batch:
        try:
            text, found = encoding.answer_spans(render, messages)
        except TemplateError as error:
            raise bad_row(path, number, f"the chat template refuses it: {error}") from error
        except encoding.TemplateUnfit as error:
            raise bad_row(path, number, "the chat template hides where its answers are") from error
        texts.append(text)
        spans.append(found)
    return texts, spans
