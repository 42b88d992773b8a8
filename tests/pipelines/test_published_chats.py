"""A published selection of chats: the card tells each column, and other tools open it and train on it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from compass_ray import records
from compass_ray.artifacts import artifact, to_parquet
from compass_ray.cli.report import print_rows
from compass_ray.config import RunConfig, load_config
from compass_ray.errors import ConfigError
from compass_ray.pipelines import publish
from compass_ray.pipelines.adapt import training_data
from compass_ray.pipelines.run import CurationRun

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson + '\n' }}{% endfor %}"
    "{% for message in messages %}{{ message.role + ': ' + message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ '\n' }}{% endfor %}"
)
CALL = {"id": "c1", "type": "function", "function": {"name": "hesabu", "arguments": '{"ya": "miguu"}'}}
CHAT = [
    {"role": "user", "content": "Miguu mingapi?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "Nihesabu."},
    {"role": "tool", "content": "8", "tool_call_id": "c1", "name": "hesabu"},
    {"role": "assistant", "content": "Minane.", "weight": 0},
]
TOOLS = [{"type": "function", "function": {"name": "hesabu", "parameters": {"type": "object"}}}]


def config(**adapt: Any) -> RunConfig:
    source = {"role": "current", "path": "x.jsonl", "lang": "sw"}
    return load_config({"output": "out", "sources": {"current": source}, "adapt": {"base": "tiny", **adapt}})


def test_the_card_tells_every_column_of_the_table_and_every_field_of_messages() -> None:
    card = publish._card({"sw": 1}, {"sw": {"sw": 1}}, config())
    published = publish._for_people(records.SELECTION.empty_table()).column_names
    fields = [field.name for field in records.MESSAGES.value_type if field.name != "role"]
    told = card.partition("| column |")[2]
    assert [name for name in published if f"`{name}`" not in told] == []
    assert [name for name in fields if f".{name}`" not in told] == []


def test_datasets_opens_it_and_a_template_takes_its_chats(tmp_path: Path) -> None:
    import datasets
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = {"doc_id": b"1" * 16, "text": "habari"}
    rows = [{"doc_id": b"0" * 16, "text": "Miguu?", "messages": CHAT, "tools": json.dumps(TOOLS)}, plain]
    folder = tmp_path / "selection" / "sw"
    folder.mkdir(parents=True)
    table = publish._for_people(pa.Table.from_pylist(rows, schema=records.SELECTION))
    (folder / "train-00000-of-00001.parquet").write_bytes(to_parquet(table))
    (folder.parent / "README.md").write_text(publish._card({"sw": 2}, {"sw": {"sw": 2}}, config()))
    loaded = datasets.load_dataset(str(folder.parent), "sw", cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded["messages"][1] is None
    messages, tools = loaded["messages"][0], json.loads(loaded["tools"][0])
    assert [message["weight"] for message in messages] == [None, None, None, 0]
    for call in (call for message in messages for call in message["tool_calls"] or ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=TEMPLATE)
    assert tokenizer.apply_chat_template(messages, tools=tools, tokenize=False) == (
        f"{json.dumps(TOOLS[0])}\n"
        'user: Miguu mingapi?\nassistant: {"name": "hesabu", "arguments": {"ya": "miguu"}}\ntool: 8\n'
        "assistant: Minane.\n"
    )


def test_a_run_whose_records_are_of_another_version_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "former"
    run.mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr("compass_ray.records.SCHEMA_VERSION", records.SCHEMA_VERSION - 1)
        made = {
            stage: artifact(str(tmp_path), stage, {"made": "by a test"}) for stage in ("ingest", "sample", "select")
        }
        for one in made.values():
            one.commit([])
    stages = {stage: {"artifact": one.name} for stage, one in made.items()}
    (run / "run.json").write_text(json.dumps({"stages": stages}))
    given = config(run=str(run))
    assert given.adapt is not None
    with pytest.raises(
        ConfigError, match=r"^adapt\.run: .*former holds records of version \d+, this compass_ray reads "
    ):
        training_data(given, given.adapt, None)  # type: ignore[arg-type]


def test_what_is_noted_of_documents_is_added_up_and_shown_by_source(tmp_path: Path) -> None:
    note = "a message has stamp, which is not read"
    documents = artifact(str(tmp_path), "ingest", {"made": "by a test"})
    rows = {"rows": [["pool", "document", 3]], "mojibake": [], "documents": []}
    notes = {"00000": [["pool", note, 2]], "00001": [["pool", note, 1], ["usage", "the row has no tools", 1200]]}
    empty = records.INGESTED.empty_table()
    manifest = documents.commit(documents.write(key, empty, {**rows, "notes": said}) for key, said in notes.items())
    run = CurationRun(f"{tmp_path}/runs/chats")
    planned = SimpleNamespace(evaluations=None, sizes={}, listings={}, layouts=None)
    publish.write_ingest(run, planned, manifest)  # type: ignore[arg-type]
    assert run.ingested["notes"] == {"pool": {note: 3}, "usage": {"the row has no tools": 1200}}
    shown = io.StringIO()
    print_rows(run, Console(file=shown, width=120))
    assert shown.getvalue().endswith(f"pool: 3 documents: {note}\nusage: 1,200 documents: the row has no tools\n")
