"""Encoding: the answers, and nothing else, are learned, whatever the chat template looks like."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from azureml_emulator.training.conversations import Messages
from azureml_emulator.training.encoding import (
    Encoder,
    TemplateUnfit,
    answer_spans,
    load,
    marked,
    save,
)
from azureml_emulator.training.preprocess import load_tokenizer
from azureml_emulator.weights import STANDIN
from jinja2 import Template

from tests.emulator.training.asking import chat

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if generation %}<|im_start|>assistant\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if generation %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if generation %}<|im_start|>assistant\n{% endif %}"
)
TOKEN = re.compile(r"<\|?\w+\|?>|\w+|.|\n")
UPSIDE_DOWN = "{% for m in messages | reverse %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def learned(template: str, messages: Messages) -> str:
    """Return the conversation with a dot for each part that would not be learned."""
    compiled = Template(template, keep_trailing_newline=True)

    def render(part: Messages, generation: bool) -> str:
        return compiled.render(messages=part, generation=generation)

    text, spans = answer_spans(render, messages)
    tokens = list(TOKEN.finditer(text))
    found = zip(tokens, marked([token.span() for token in tokens], spans), strict=True)
    text = "".join(token[0] if mark else "·" for token, mark in found)
    return re.sub("·+", "·", text)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, "·yes<|im_end|>\n·no<|im_end|>\n"),
        (PHI3, "·yes<|end|>\n·no<|end|>\n<|endoftext|>"),
        (THINKING, "·yes<|im_end|>\n·<think>\n\n</think>\n\nno<|im_end|>\n"),
    ],
)
def test_each_answer_is_learned_with_its_end_and_no_question(template: str, expected: str) -> None:
    """Also where the template ends the last turn otherwise, and an answer repeats a question."""
    messages = chat("yes", "yes", "no?", "no")["messages"]

    assert expected == learned(template, messages)


def test_an_answer_may_have_spaces_around_it() -> None:
    """Which many templates take away."""
    assert learned(THINKING, chat("a", "b")["messages"]) == learned(
        THINKING, chat("a", " b\n")["messages"]
    )


def test_a_template_that_hides_the_answers_is_refused() -> None:
    """Rather than training on the wrong tokens."""
    with pytest.raises(TemplateUnfit):
        learned(UPSIDE_DOWN, chat("a", "b", "c", "d")["messages"])


def test_a_token_belongs_to_the_answer_that_has_all_of_it() -> None:
    """One without text of its own too, and none across a border."""
    places = [(0, 2), (2, 4), (4, 4), (4, 7), (6, 8), (9, 12)]

    assert [False, False, True, True, False, True] == marked(places, [(3, 7), (9, 12)])
    assert [] == marked([], [(0, 1)])


def test_long_rows_are_cut_and_those_without_an_answer_dropped(tmp_path: Path) -> None:
    """Both are counted, and what is kept comes back from disk as it was."""
    tokenizer = load_tokenizer(STANDIN)
    texts = ["question answer", "question question answer", "question answer answer answer"]
    width = len(tokenizer("question answer", add_special_tokens=False)["input_ids"])
    answers = [[(text.index(" answer"), len(text))] for text in texts]
    encoder = Encoder(tokenizer, max_length=width)

    encoder.add(texts, answers)
    save(encoder.encoded(), tmp_path, "train")
    rows = load(tmp_path, "train")

    assert (2, 1, 2, width) == (encoder.truncated, encoder.dropped, len(rows), rows.longest)
    assert "question answer" == tokenizer.decode(rows[0]["tokens"])
    assert "answer" == tokenizer.decode(rows[1]["tokens"][rows[1]["answers"]]).strip()
