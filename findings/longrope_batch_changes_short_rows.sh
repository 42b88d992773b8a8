#!/usr/bin/env bash
# transformers 5.23.0: under LongRoPE (as in Phi-3 and Phi-4-mini) one long row of a batch changes what the model says of
# the short ones. Frequencies are chosen once for the whole batch, by its highest position: beyond
# original_max_position_embeddings all rows get the long factors. So the loss of a short document depends on what it is
# batched with, padding and attention mask being as they should be.
# Seen: logits of a row of 8 tokens alone and beside another short row agree to 1e-5; beside a row of 40 tokens, with
# original_max_position_embeddings 32, they are off by more than 1e-3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy
"$folder/venv/bin/python" - <<'PY'
import torch
from transformers import AutoModelForCausalLM, Phi3Config

half = 32 // 4 // 2
rope = {"rope_type": "longrope", "short_factor": [1.0] * half, "long_factor": [4.0] * half, "rope_theta": 10000.0}
config = Phi3Config(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=128, original_max_position_embeddings=32, pad_token_id=0,
    rope_parameters={**rope, "original_max_position_embeddings": 32},
)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(config).eval()
short = torch.arange(1, 9)


def beside(length):
    """Logits of the short row in a batch with another row of some length."""
    rows = torch.zeros((2, max(length, 8)), dtype=torch.long)
    rows[0, :8], rows[1, :length] = short, torch.arange(length) % 60 + 1
    mask = torch.zeros_like(rows)
    mask[0, :8], mask[1, :length] = 1, 1
    with torch.no_grad():
        return model(input_ids=rows, attention_mask=mask).logits[0, :8]


with torch.no_grad():
    alone = model(input_ids=short[None]).logits[0]
near, far = ((beside(length) - alone).abs().max().item() for length in (16, 40))
assert near < 1e-5, near
assert far > 1e-3, far
print(f"transformers 5.23.0: logits of 8 tokens move by {near:.1e} beside 16 others, by {far:.1e} beside 40")
PY
