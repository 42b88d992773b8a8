"""Chat templates in the styles of well-known models, tokenizers that have them, and chats to render."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from compass_ray.adapt.examples import Example

CORPUS = [
    "How many legs has a spider? It has eight. A bee has six.",
    "Buibui ana miguu minane, na nyuki ana miguu sita.",
    "சிலந்திக்கு எட்டு கால்கள் உண்டு.",
    "蜘蛛の足は八本です。",
    "للعنكبوت ثماني أرجل.",
]
CONTROL = [
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"),
]

# In the templates, [[ and ]] stand for {% generation %} and {% endgeneration %}, or for nothing.
QWEN = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}"
    "{% elif message.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}[[{{ message.content + '<|im_end|>' }}]]{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023<|eot_id|>' }}{% endif %}"
    "{% for message in messages %}"
    "{% set role = 'ipython' if message.role == 'tool' else message.role %}"
    "{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}"
    "{% if message.role == 'assistant' %}[[{{ message.content | trim + '<|eot_id|>' }}]]"
    "{% else %}{{ message.content | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI = (
    "{% for message in messages %}"
    "{{ '<|' + message.role + '|>' }}"
    "{% if message.role == 'assistant' %}[[{{ message.content + '<|end|>' }}]]"
    "{% else %}{{ message.content + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


@dataclass(frozen=True)
class Style:
    template: str
    eos: str
    end_of_turn: str
    bos: str | None = None


STYLES = {
    "qwen": Style(QWEN, "<|im_end|>", "<|im_end|>"),
    "llama": Style(LLAMA, "<|eot_id|>", "<|eot_id|>", bos="<|begin_of_text|>"),
    "phi": Style(PHI, "<|endoftext|>", "<|end|>"),
}


@cache
def backend(bos: str | None, trim_offsets: bool) -> str:
    """A byte-level BPE that knows few characters, so that most of Tamil, Japanese and emoji are several tokens each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    offsets = processors.ByteLevel(trim_offsets=trim_offsets)
    first = [(bos, tokenizer.token_to_id(bos))] if bos else []
    added = processors.TemplateProcessing(single=f"{bos} $A" if bos else "$A", special_tokens=first)
    tokenizer.post_processor = processors.Sequence([offsets, added])
    return str(tokenizer.to_str())


def make_tokenizer(
    template: str | None = None, eos: str | None = None, bos: str | None = None, trim_offsets: bool = False
) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend(bos, trim_offsets)), eos_token=eos, bos_token=bos
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    return tokenizer


@cache
def styled(name: str, generation: bool = False, trim_offsets: bool = False) -> PreTrainedTokenizerFast:
    style = STYLES[name]
    marks = ("{% generation %}", "{% endgeneration %}") if generation else ("", "")
    template = style.template.replace("[[", marks[0]).replace("]]", marks[1])
    return make_tokenizer(template, style.eos, style.bos, trim_offsets)


def talk(*turns: str) -> list[dict[str, str]]:
    """``talk("u:question", "a:answer")``."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


def trained_text(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    return str(tokenizer.decode(example.tokens[example.trained], clean_up_tokenization_spaces=False))
