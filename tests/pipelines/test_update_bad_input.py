"""Updates on usage that says too little, or is not comparable: what is said, and champions that stay what they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from loop import Loop, states, write_log

from compass_ray import gate_candidates, update_adapters
from compass_ray.errors import AdaptationError, EmptyInput, FingerprintMismatch, GateRefused

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow, pytest.mark.timeout(900)]

NAIVE = ("update.when=always", "update.method=naive")


@pytest.fixture(autouse=True)
def _champion_untouched(loop: Loop) -> Iterator[None]:
    champion = loop.registry.open("sw@champion")
    yield
    assert loop.registry.open("sw@champion") == champion


@pytest.mark.parametrize("sets", [(), NAIVE])
def test_a_file_without_rows_is_an_error_that_names_the_section(
    loop: Loop, tmp_path: Path, sets: tuple[str, ...]
) -> None:
    before = states(loop)
    with pytest.raises(EmptyInput, match=r"no usage document is left of 0 rows .*; check monitor\.usage"):
        update_adapters(loop.config(write_log(tmp_path / "empty.jsonl", []), *sets))
    assert states(loop) == before


def test_usage_of_another_language_alone_leaves_a_champion_as_it_is(loop: Loop, tmp_path: Path) -> None:
    before = states(loop)
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"question": f"ile kosztuje {n}?", "lang": "pl"}) + "\n" for n in range(30)))
    for sets in ((), NAIVE):
        run = update_adapters(loop.config(log, *sets))
        assert (run.languages, run.record["verdicts"]["sw"]) == ({}, "insufficient")
        assert run.unchanged["sw"] == "there is no new usage of it"
        assert run.unchanged["pl"]
    assert states(loop) == before


def test_one_document_is_too_little_to_judge_or_to_update_on(loop: Loop, tmp_path: Path) -> None:
    before = states(loop)
    log = write_log(tmp_path / "one.jsonl", ["Bei ya dhahabu leo?"])
    run = update_adapters(loop.config(log))
    assert run.languages == {}
    assert run.unchanged["sw"] == "too little is known of its usage to tell whether it has drifted"
    # That it is asked for all the same does not help if the document is among those held out.
    with pytest.raises(
        AdaptationError, match=r"sw: EmptyInput: .* no usage document is left outside the held-out part"
    ):
        update_adapters(loop.config(log, *NAIVE))
    assert states(loop) == before


def test_one_question_asked_a_hundred_times_is_no_evidence_for_a_gate(loop: Loop, tmp_path: Path) -> None:
    log = write_log(tmp_path / "same.jsonl", ["Bei ya dhahabu leo sokoni ni shilingi ngapi?"] * 100)
    run = update_adapters(loop.config(log, *NAIVE))
    assert list(run.languages) == ["sw"]
    config = loop.config(log, "gate.margin=100")
    with pytest.raises(GateRefused, match=r"is undecided, and .* stays champion: .*new usage"):
        gate_candidates(config)
    gated = gate_candidates(config, promote=False)
    (line,) = [line for line in gated.verdict("sw")["lines"] if line["about"] == "new_usage"]
    assert line["outcome"] == "undecided"


@pytest.mark.parametrize("model", ["bundled", "usem3"])
def test_a_champion_under_another_encoder_is_not_compared(loop: Loop, model: str) -> None:
    before = states(loop)
    with pytest.raises(
        FingerprintMismatch, match=r"hashing-.* there, .* here\); fit a new one or use its encoder"
    ) as raised:
        update_adapters(loop.config("moved", f"embed.model={model}", "update.when=always"))
    assert raised.value.exit_code == 2
    assert states(loop) == before
