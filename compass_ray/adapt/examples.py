"""One document -> one training example: its tokens, which of them the loss is about, and the bytes those spell.

Plain text trains every token that something predicts. A conversation trains what its assistant said and the token
that ends the turn, so that the model learns to stop. Chat templates seldom mark those places (``{% generation %}``),
so they are found by rendering the conversation up to the turn and up to its end: both must begin the whole rendering.
What an assistant says is all that the template makes of its turn: reasoning, content and calls of tools. A turn of
weight 0 is read and not trained.

Text is text: a document that spells a control token (``<|im_end|>``) must not become one, or data could end turns and
forge others. Plain text is encoded without control tokens; a conversation, whose rendering cannot tell its content
from the template's own markup, is refused.

A tokenizer is a fast one of transformers; nothing else of that library is used. Cost: a document is tokenized once,
and a conversation of t assistant turns is rendered 2 t + 2 times, and up to twice more if it has calls, reasoning or
tools.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.adapt.conversations import (
    Conversation,
    Messages,
    TemplateMismatch,
    TurnRewritten,
    conversation,
    left_out,
    render,
    texts_of,
)
from compass_ray.errors import ConfigError

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
PROBE = (
    {"role": "user", "content": "How many legs has a spider?"},
    {"role": "assistant", "content": "It has eight."},
)
"""What every template for conversations must render. It has one answer: some templates take away what an earlier one
has that a last one keeps, and serve conversations of one answer all the same."""


@dataclass(frozen=True, eq=False)
class Example:
    """A training example of n tokens."""

    tokens: NDArray[np.int32]  # (n,), n <= max_length
    trained: NDArray[np.bool_]  # (n,) a target of the loss; never the first token, which nothing predicts
    n_bytes: int  # UTF-8 bytes of the text that the trained tokens spell: what bits per byte divides by
    truncated: bool
    left_out: tuple[str, ...] = ()  # what the chat template has no place for


def text_example(tokenizer: Any, text: str, max_length: int) -> Example:
    """Make an example of plain text, all of it trained.

    It stands between the special tokens that the tokenizer itself adds, and EOS.

    A text that is cut has no EOS: it does not end there.
    """
    encoded = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True, verbose=False)
    tokens, starts = encoded["input_ids"], _starts(encoded["offset_mapping"])
    eos = tokenizer.eos_token_id
    if eos is not None and tokens[-1:] != [eos]:
        tokens, starts = [*tokens, eos], np.append(starts, starts[-1])
    trained = np.ones(len(tokens), dtype=np.bool_)
    return _example(np.array(tokens, dtype=np.int32), trained, _spelled(text, starts), max_length)


def chat_example(tokenizer: Any, messages: Messages, max_length: int, tools: str | None = None) -> Example:
    """Make an example of a conversation in the tokenizer's chat template.

    It is trained on what the assistant says and on ends of its turns.

    A token that begins before an answer does not count as one of its tokens, even if it ends inside. Control tokens
    are trained but spell no bytes. Without a turn of the assistant, or where all have weight 0, nothing is trained.

    Parameters
    ----------
    messages
        As ``records.MESSAGES`` holds them; fields other than role and content may be missing.
    tools : str, optional
        JSON of what the assistant may call.

    Raises
    ------
    TemplateMismatch
        If the template refuses the conversation, leaves out its calls of tools, rewrites earlier turns once others
        follow, or if a message spells a control token.
    """
    if not messages:
        raise TemplateMismatch("no messages")
    markup = _markup(tokenizer)
    talk = conversation(tokenizer, messages, tools)
    parts: Iterator[tuple[str, Any]] = ((f"message {number}", message) for number, message in enumerate(talk.messages))
    for place, part in chain(parts, [("a tool", talk.tools)]):
        for said in texts_of(part):
            if found := markup.control.search(said):
                raise TemplateMismatch(f"{place} spells the control token {found[0]!r}")

    text = render(tokenizer, talk)
    lost = left_out(tokenizer, talk, text)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens, starts = np.array(encoded["input_ids"], dtype=np.int32), _starts(encoded["offset_mapping"])
    trained = np.zeros(len(tokens), dtype=np.bool_)
    if marked := bool(GENERATION.search(tokenizer.get_chat_template(tools=talk.tools))):
        trained = _generated(tokenizer, talk, encoded["offset_mapping"])
    for span in _turns(tokenizer, talk, talk.untrained if marked else talk.trained, text, markup.strings):
        first, stop = np.searchsorted(starts[:-1], span)
        trained[first:stop] = not marked
    spelled = np.where(np.isin(tokens, markup.control_ids), 0, _spelled(text, starts))
    return replace(_example(tokens, trained, spelled, max_length), left_out=lost)


def example_of(tokenizer: Any, row: Mapping[str, Any], max_length: int) -> tuple[Example | None, str | None]:
    """Make the example of a document, or say in a word why there is none.

    Parameters
    ----------
    row
        Its ``text``, ``messages`` and ``tools``; no messages for plain text.
    """
    messages = row["messages"]
    try:
        example = (
            text_example(tokenizer, row["text"], max_length)
            if messages is None
            else chat_example(tokenizer, messages, max_length, row["tools"])
        )
    except TemplateMismatch as mismatch:
        return None, mismatch.reason
    if example.trained.any():
        return example, None
    answers = [message for message in messages or () if message["role"] == "assistant"]
    if answers and all(answer.get("weight") == 0 for answer in answers):
        return None, "all_weights_zero"
    return None, "cut_before_the_answer" if example.truncated and answers else "no_trainable_token"


def not_in_template(examples: Iterable[Example | None]) -> dict[str, int]:
    """Count the documents that have something for which the chat template has no place, by what it is."""
    return dict(sorted(Counter(kind for example in examples if example for kind in example.left_out).items()))


def check_template(tokenizer: Any, field: str) -> None:
    """Refuse a tokenizer that cannot mask a plain conversation of one answer, before any work is done.

    Parameters
    ----------
    field
        The config field that names the tokenizer, for the message.
    """
    cure = "give adapt.chat_template"
    if not tokenizer.is_fast:
        raise ConfigError(f"{field}: the tokenizer does not say where its tokens begin; expected a fast tokenizer")
    if tokenizer.chat_template is None:
        raise ConfigError(f"{field}: the tokenizer has no chat template, but there are conversations; {cure}")
    try:
        example = chat_example(tokenizer, PROBE, max_length=2**31)
    except TemplateMismatch as exc:
        raise ConfigError(
            f"{field}: the chat template cannot tell assistant tokens from others: {exc}; {cure}"
        ) from exc
    expected = sum(len(message["content"]) for message in PROBE if message["role"] == "assistant")
    if example.n_bytes < expected:
        raise ConfigError(
            f"{field}: the chat template lets {example.n_bytes} of {expected} bytes of a plain answer be trained "
            f"(their tokens begin before them, or outside of {{% generation %}}); {cure}"
        )


def ends_answers(tokenizer: Any) -> bool:
    """Tell whether an answer's last trained token is one that no text spells.

    A model learns to stop by such a token.
    """
    example = chat_example(tokenizer, PROBE, max_length=2**31)
    last = int(example.tokens[example.trained][-1])
    return last in tokenizer.added_tokens_decoder or last in tokenizer.all_special_ids


@dataclass(frozen=True, eq=False)
class _Markup:
    """The tokens of a tokenizer that are not text."""

    control: re.Pattern[str]
    control_ids: NDArray[np.int32]
    strings: tuple[str, ...]  # also of tokens such as <think>, which a document may spell


@lru_cache(maxsize=4)  # listing a few hundred added tokens takes a quarter of the time of tokenizing a document
def _markup(tokenizer: Any) -> _Markup:
    added = tokenizer.added_tokens_decoder
    control = {token.content for token in added.values() if token.special}.union(tokenizer.all_special_tokens)
    ids = {number for number, token in added.items() if token.special}.union(tokenizer.all_special_ids)
    longest_first = sorted(control, key=lambda string: (-len(string), string))
    return _Markup(
        control=re.compile("|".join(map(re.escape, longest_first)) or r"(?!)"),
        control_ids=np.array(sorted(ids), dtype=np.int32),
        strings=tuple(sorted(control.union(token.content for token in added.values()))),
    )


def _turns(
    tokenizer: Any, talk: Conversation, numbers: Sequence[int], text: str, markup: tuple[str, ...]
) -> Iterator[tuple[int, int]]:
    """Yield where turns of the assistant begin and end in the rendered text.

    What follows their last token is left out.
    """
    if not numbers:
        return
    eos = tokenizer.eos_token or ""
    # Phi ends the conversation with EOS, not the turn: it is gone as soon as another turn follows.
    closing = "" if render(tokenizer, talk, prompt=True).startswith(text) else eos
    for number in numbers:
        if number == 0:
            raise TemplateMismatch("message 0 is the assistant's: no prompt comes before it")
        before = render(tokenizer, talk.until(number), prompt=True)
        after = render(tokenizer, talk.until(number + 1)).removesuffix(closing)
        if not (text.startswith(after) and after.startswith(before)):
            raise TurnRewritten(f"the chat template renders message {number} otherwise than its place in the whole")
        visible = after.rstrip()
        yield len(before), len(visible if visible.endswith(markup) else after)


def _generated(tokenizer: Any, talk: Conversation, offsets: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Make the mask of a template that marks what the assistant generates."""
    begin, end = np.array(offsets).T
    # transformers looks both ends of an answer up in the offsets. Where those leave white space out (trim_offsets),
    # it drops the answer or trains all that follows it.
    if (begin > np.concatenate(([0], end[:-1]))).any():
        raise TemplateMismatch("the tokenizer's offsets leave characters out, so {% generation %} cannot be placed")
    encoded = tokenizer.apply_chat_template(
        talk.messages, tools=talk.tools, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = np.array(encoded["assistant_masks"], dtype=np.bool_)
    # Of a last character that is several tokens, transformers marks the first one only; they all end where it ends.
    return np.isin(end, end[mask])


def _starts(offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Find where in the text each token begins. Token t spells ``text[starts[t]:starts[t + 1]]``.

    Offsets alone do not tile a text: tokens of one character share its offsets, special tokens that the tokenizer adds
    are empty at 0, and ``trim_offsets`` leaves white space out. Here a character belongs to the token that completes
    it, and white space to the token that follows the one before.

    Returns
    -------
    ndarray of shape (n + 1,), int64
        Ascending; the last one is the end of the text.
    """
    begin, end = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    reached = np.maximum.accumulate(np.concatenate(([0], end)))
    return np.append(np.where(end > begin, np.minimum(begin, reached[:-1]), reached[:-1]), reached[-1])


def _spelled(text: str, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the UTF-8 bytes that each token completes, of shape (n,)."""
    code = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    sizes = 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)
    return np.diff(np.concatenate(([0], np.cumsum(sizes)))[starts])


def _example(
    tokens: NDArray[np.int32], trained: NDArray[np.bool_], spelled: NDArray[np.int64], max_length: int
) -> Example:
    trained[:1] = False
    kept = slice(max_length)
    n_bytes = int(spelled[kept][trained[kept]].sum())
    return Example(tokens[kept], trained[kept], n_bytes, truncated=len(tokens) > max_length)
