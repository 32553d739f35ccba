"""Make the tiny model that stands in for the big ones in the emulator.

Run as ``python demo/make_standin.py``, two minutes on one core; needs ``azureml-emulator[train]``.
The model has the architecture of Phi-3 and learns the demo's words and the form of its chats, from
towns in which every job is somebody else's: it comes to know none of the facts, and sees none of
the questions of the ``test_*`` splits. Without that, LoRA could teach it facts but hardly words:
the rows of its output matrix stay as they are, so that a word that was never seen stays improbable
when replies are sampled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from generate import SEED, TRAIN, conversations, residents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

TARGET = Path(__file__).parents[1] / "emulator/src/azureml_emulator/standin"
VOCABULARY = 768
CONTEXT = 2048
STEPS, BATCH, LEARNING_RATE = 1500, 16, 3e-3

PAD, END, USER, ASSISTANT, SYSTEM = SPECIAL = (
    "<|endoftext|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def main() -> None:
    """Make it and write it."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    chats = shuffled_chats(random.Random(SEED))  # noqa: S311
    tokenizer = make_tokenizer([next(chats) for _ in range(5000)])
    model = make_model(tokenizer)
    train(model, tokenizer, chats)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(TARGET)
    tokenizer.save_pretrained(TARGET)


def shuffled_chats(chance: random.Random) -> Iterator[list[dict[str, str]]]:
    """Yield chats without end, from one town after another in which nothing is as in the demo.

    Half of them ask about the same two residents again and again, so that it pays to look at what a
    question is about: else the model would learn to ignore it, no answer being foreseeable.
    """
    town = residents()
    while True:
        names, pays = (chance.sample(town, len(town)) for _ in range(2))
        mixed = [
            one._replace(who=name.who, pronoun=name.pronoun, pay=pay.pay)
            for one, name, pay in zip(town, names, pays, strict=True)
        ]
        single = list(conversations(chance, TRAIN, mixed))
        yield from chance.sample(single, 24)
        # They come resident by resident, as many for each.
        each = len(single) // len(town)
        for _ in range(24):
            about = chance.sample(range(len(town)), 2)
            chats = [chat for one in about for chat in single[one * each : (one + 1) * each]]
            yield [message for chat in chance.sample(chats, 4) for message in chat]


def make_tokenizer(chats: list[list[dict[str, str]]]) -> Any:
    """Learn a byte-level BPE, which can spell any text, from *chats*."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        (message["content"] for chat in chats for message in chat),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def make_model(tokenizer: Any) -> Any:
    """Return the untrained model."""
    return Phi3ForCausalLM(
        Phi3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            original_max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train(model: Any, tokenizer: Any, chats: Iterator[list[dict[str, str]]]) -> None:
    """Train all weights on every token, the questions' too: they are words to be known."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for step in range(STEPS):
        texts = [tokenizer.apply_chat_template(next(chats), tokenize=False) for _ in range(BATCH)]
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
