#!/usr/bin/env bash
# transformers 5.23.0: a date, time or Decimal in a message, say in the arguments of a tool call that were read from
# Parquet or YAML, is rendered as the name of its type in angle brackets, and nothing warns. The tojson filter gets the
# placeholder, so what would otherwise raise ("not JSON serializable") becomes training text.
# Seen: {"until": "<date>", "price": "<Decimal>"}.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
"$folder/venv/bin/python" - <<'PY'
from datetime import date
from decimal import Decimal

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

TEMPLATE = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"
arguments = {"until": date(2024, 2, 29), "price": Decimal("3.50")}
call = {"type": "function", "function": {"name": "order", "arguments": arguments}}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"hi": 0}, unk_token="hi")))
chat = [{"role": "assistant", "content": "", "tool_calls": [call]}]
rendered = tokenizer.apply_chat_template(chat, tokenize=False, chat_template=TEMPLATE)
assert rendered == '{"until": "<date>", "price": "<Decimal>"}', rendered
print("transformers 5.23.0 renders", rendered)
PY
