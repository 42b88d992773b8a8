#!/usr/bin/env bash
# transformers 5.23.0: a chat template never sees a null. apply_chat_template takes every key of a message whose value is
# None out before it renders, so a template that asks "content is none" about an assistant that only calls a tool takes
# the other branch; rendered by jinja2 itself, the same template and messages give the call.
# Seen: "hi" where jinja2 gives "hi[call]". Nulls inside the arguments of a call stay.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
"$folder/venv/bin/python" - <<'PY'
import jinja2
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}{% if m.content is none %}[call]{% else %}{{ m.content }}{% endif %}{% endfor %}"
call = {"type": "function", "function": {"name": "weather", "arguments": {"day": None}}}
messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"hi": 0}, unk_token="hi")))


def rendered(template):
    return tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template)


assert jinja2.Template(TEMPLATE).render(messages=messages) == "hi[call]"
assert rendered(TEMPLATE) == "hi", rendered(TEMPLATE)
assert "content" not in rendered("{{ messages[1] | tojson }}")
assert '"day": null' in rendered("{{ messages[1] | tojson }}")
print("transformers 5.23.0 renders", repr(rendered(TEMPLATE)), "for a message whose content is null")
PY
