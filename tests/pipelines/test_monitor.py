"""New usage beside the usage that a selection, or an adapter, was made for: real runs over the demo corpus."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo import DEMO, demo_config
from registry_helpers import BASE, adapter_files, lineage

from compass_ray import CurationRun, MonitoredRun, curate, load_config, monitor_usage, train_adapters
from compass_ray.artifacts import open_artifact, to_parquet
from compass_ray.errors import (
    ArtifactMissing,
    ConfigError,
    DataError,
    EmptyInput,
    FingerprintMismatch,
    IncomparableReference,
    TooManyBadRows,
)
from compass_ray.models import BaseRef
from compass_ray.pipelines.cache import list_cached
from compass_ray.pipelines.run import status_of
from compass_ray.registry.store import Registry

Watch = Callable[..., MonitoredRun]
pytestmark = pytest.mark.usefixtures("local_ray")


TEMPLATES = {"sw": "Bei ya dhahabu leo sokoni ni shilingi {}?", "ta": "இன்று தங்கம் விலை {} ரூபாய் தானா?"}
"""What a new client might send: one question over and over, with other numbers."""


def usage_rows() -> list[dict[str, str]]:
    with gzip.open(DEMO / "usage.tsv.gz", "rt", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream, delimiter="\t") if row["lang"]]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo's usage in two parts that have no row in common, every topic in both."""
    folder = tmp_path_factory.mktemp("halves")
    rows = sorted(usage_rows(), key=lambda row: (row["lang"], row["topic"], row["question"]))
    return write_rows(folder / "one.jsonl", rows[::2]), write_rows(folder / "other.jsonl", rows[1::2])


@pytest.fixture(scope="module")
def former(local_ray: None, halves: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> CurationRun:
    """A curation for the first half of usage."""
    return curate(demo_config(tmp_path_factory.mktemp("former"), *_sources(halves[0])))


def _sources(usage: Path) -> list[str]:
    source = {"role": "usage", "path": str(usage), "columns": {"text": "question", "lang": "lang"}}
    return [f"sources.usage={json.dumps(source)}"]


@pytest.fixture
def watch(former: CurationRun, halves: tuple[Path, Path]) -> Watch:
    """``watch(path, text="question", **fields)``: monitor a file beside that curation."""
    output = Path(former.path).parent.parent

    def watched(path: Path, text: str = "question", *overrides: str, **fields: Any) -> MonitoredRun:
        columns = {"text": text, "lang": "lang", **fields.pop("columns", {})}
        section = {"usage": {"log": {"path": str(path), "columns": columns}}, "min_documents": 20, "min_reference": 30}
        sets = [*_sources(halves[0]), f"monitor={json.dumps(section | fields)}", *overrides]
        return monitor_usage(demo_config(output, *sets))

    return watched


def test_other_questions_of_the_same_kind_are_stable(watch: Watch, halves: tuple[Path, Path]) -> None:
    run = watch(halves[1])
    assert run.verdicts == {"hi": "stable", "sw": "stable", "ta": "stable"}
    for told in run.record["target_langs"].values():
        [window] = told["windows"]
        assert window["start"] is None
        assert window["divergence"]["p_value"] > 0.05
        assert window["separation"]["p_value"] > 0.05
        assert told["notes"] == []


def test_questions_about_other_things_are_a_drift_that_says_where(watch: Watch, tmp_path: Path) -> None:
    texts = {lang: [template.format(number) for number in range(60)] for lang, template in TEMPLATES.items()}
    rows = [{"lang": lang, "text": text} for lang in texts for text in texts[lang]]
    run = watch(write_rows(tmp_path / "log.jsonl", rows), "text")
    assert run.verdicts == {"hi": "insufficient", "sw": "drift", "ta": "drift"}
    told = run.record["target_langs"]["sw"]
    [window] = told["windows"]
    assert window["documents"] == 60
    assert window["separation"]["low"] > 0.8
    assert sum(row["documents"] for row in run.windows.to_pylist() if row["target_lang"] == "sw") == 60
    grown = [row for row in window["clusters"] if row["share"] > row["share_before"]]
    assert sum(row["share"] - row["share_before"] for row in grown) > 1 / 3
    assert {row["exemplar"] for row in grown} <= set(texts["sw"])


def test_the_same_files_give_the_same_answer_and_finished_stages_are_reused(
    watch: Watch, halves: tuple[Path, Path]
) -> None:
    first, second = (watch(halves[1]).record for _ in range(2))
    assert first["target_langs"] == second["target_langs"]
    assert all(stage["reused"] for stage in second["stages"].values())


def test_watching_leaves_the_selection_what_it_was_and_the_cache_knows_what_it_uses(
    watch: Watch, former: CurationRun, halves: tuple[Path, Path]
) -> None:
    record, certificate, status = former.record, former.certificate, status_of(former.path)
    run = watch(halves[1])
    assert (former.record, former.certificate, status_of(former.path)) == (record, certificate, status)
    assert (status_of(run.path).command, status_of(run.path).state) == ("monitor", "finished")
    output = str(Path(former.path).parent.parent)
    used = {artifact.name for artifact in list_cached(output) if artifact.runs}
    assert set(run.record["stages"]) <= used


def test_a_window_is_compared_by_vectors_of_its_own_documents_however_many_shards_they_lie_in(
    watch: Watch, halves: tuple[Path, Path], tmp_path: Path
) -> None:
    """One day as before and one of other things: each is told apart as if it had come alone."""
    rows = [json.loads(line) for line in halves[1].read_text(encoding="utf-8").splitlines()]
    same = [{"text": row["question"], "lang": "sw", "at": "2026-11-02"} for row in rows if row["lang"] == "sw"]
    other = [{"text": TEMPLATES["sw"].format(number), "lang": "sw", "at": "2026-11-03"} for number in range(40)]
    asked: dict[str, Any] = {"columns": {"timestamp": "at"}, "period": "day", "as_of": "2026-11-04T00:00:00Z"}
    mixed = [row for pair in itertools.zip_longest(same, other) for row in pair if row]
    both = watch(write_rows(tmp_path / "both.jsonl", mixed), "text", "ingest.shard_bytes=1024", **asked)
    found = [window["separation"] for window in both.record["target_langs"]["sw"]["windows"]]
    assert found[0]["p_value"] > 0.05 > found[1]["p_value"]
    for number, part in enumerate((same, other)):
        alone = watch(write_rows(tmp_path / f"{number}.jsonl", part), "text", **asked)
        [window] = alone.record["target_langs"]["sw"]["windows"]
        assert window["separation"] == found[number]


def test_windows_follow_from_timestamps(watch: Watch, halves: tuple[Path, Path], tmp_path: Path) -> None:
    """Two weeks as before, then two of other things."""
    rows = [json.loads(line) for line in halves[1].read_text(encoding="utf-8").splitlines()]
    same = [{"lang": row["lang"], "text": row["question"]} for row in rows if row["lang"] == "sw"]
    other = [{"lang": "sw", "text": TEMPLATES["sw"].format(number)} for number in range(34)]
    dated = [row | {"at": f"2026-11-{day:02}"} for part, days in ((same, (2, 9)), (other, (17, 24)))
             for day in days for row in part[days.index(day) :: 2]]  # fmt: skip
    path = write_rows(tmp_path / "log.jsonl", [*dated, {"lang": "sw", "text": "bila tarehe", "at": None}])
    asked: dict[str, Any] = {"columns": {"timestamp": "at"}, "period": "week", "min_documents": 10}
    over = {"as_of": "2026-11-30T00:00:00Z"}
    run = watch(path, "text", alarms=2, among=3, **over, **asked)
    told = run.record["target_langs"]["sw"]
    assert [window["start"][:10] for window in told["windows"]] == [f"2026-11-{day:02}" for day in (2, 9, 16, 23)]
    assert [window["verdict"] for window in told["windows"]] == ["stable", "stable", "drift", "drift"]
    assert (run.verdicts["sw"], run.record["undated"]) == ("drift", 1)
    assert watch(path, "text", alarms=3, among=3, **over, **asked).verdicts["sw"] == "stable"
    last = watch(path, "text", **asked).record["target_langs"]["sw"]["windows"][-1]
    assert (last["verdict"], last["separation"]) == ("open", None)
    early = watch(path, "text", as_of="2026-11-17T00:00:00Z", **asked).record  # dates of tomorrow are no windows
    assert [window["start"][:10] for window in early["target_langs"]["sw"]["windows"]] == [
        "2026-11-02",
        "2026-11-09",
        "2026-11-16",
    ]
    assert (early["undated"], early["later"]) == (1, 17)
    with pytest.raises(
        DataError, match=r"^monitor\.as_of: all of \d+ documents with a timestamp are dated after 2026-10"
    ):
        watch(path, "text", as_of="2026-10-01T00:00:00Z", **asked)


def test_a_period_without_any_timestamp_is_refused_before_texts_are_embedded(
    watch: Watch, former: CurationRun, tmp_path: Path
) -> None:
    rows = [{"lang": "sw", "text": f"swali la {number}"} for number in range(30)]
    with pytest.raises(DataError, match=r"monitor\.period: day, but none of 30 documents has a timestamp"):
        watch(write_rows(tmp_path / "log.jsonl", rows), "text", period="day")
    stages = [stage["stage"] for stage in status_of(f"{former.path}/monitor").stages]
    assert stages[-1] == "dates"
    assert "embed" not in stages


def test_faults_of_new_usage_are_named_as_the_config_names_it(watch: Watch, tmp_path: Path) -> None:
    with pytest.raises(EmptyInput, match=r"^monitor\.usage\.log\.path: no file matches"):
        watch(tmp_path / "nowhere.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"lang": "sw", "text": "habari"}\n{"lang": \n')
    with pytest.raises(TooManyBadRows, match=r"worst: monitor\.usage\.log: 1 × broken_json"):
        watch(broken, "text")
    with pytest.raises(EmptyInput, match=r"check monitor\.usage with role usage"):
        watch(broken, "text", "ingest.max_bad_fraction=1", columns={"lang": "none"})


def test_texts_are_shown_without_what_controls_a_terminal_and_only_if_asked_for(watch: Watch, tmp_path: Path) -> None:
    texts = [f"Bei ya \x1b[31mdhahabu\x9b leo \u202esokoni\u202c {number}?" for number in range(60)]
    path = write_rows(tmp_path / "log.jsonl", [{"lang": "sw", "text": text} for text in texts])
    shown = watch(path, "text")
    exemplars = [row["exemplar"] for row in shown.record["target_langs"]["sw"]["windows"][0]["clusters"]]
    assert any(text and text.startswith("Bei ya [31mdhahabu leo sokoni") for text in exemplars)
    assert not any(set(text or "") & set("\x1b\x9b\u202e\u202c") for text in exemplars)
    silent = watch(path, "text", exemplars=False)
    assert silent.windows["exemplar"].null_count == silent.windows.num_rows > 0
    assert "dhahabu" not in json.dumps(silent.record["target_langs"], ensure_ascii=False)
    assert silent.verdicts == shown.verdicts


def test_broken_rows_are_kept_for_people_to_look_at(watch: Watch, halves: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(halves[1].read_bytes() + b'{"lang": "sw", "question": \n')
    run = watch(path)
    quarantined = run.quarantine.to_pylist()
    assert [(row["source"], row["reason"]) for row in quarantined] == [("log", "broken_json")]
    assert run.verdicts["sw"] == "stable"


def test_another_encoder_and_a_run_that_is_not_there_are_refused(watch: Watch, halves: tuple[Path, Path]) -> None:
    with pytest.raises(FingerprintMismatch, match="prompt:  there, query:  here"):
        watch(halves[1], "question", "embed.prompt='query: '")
    with pytest.raises(ArtifactMissing, match=r"nowhere: has no run\.json"):
        watch(halves[1], reference="/nowhere")
    with pytest.raises(ConfigError, match=r"give at least monitor\.usage"):
        monitor_usage(load_config({"output": "x", "sample": {"budget": 1}, "sources": _roles(halves[0])}))


def _roles(path: Path) -> dict[str, Any]:
    columns = {"text": "question", "lang": "lang"}
    return {role: {"role": role, "path": str(path), "columns": columns} for role in ("pool", "usage")}


def test_a_registry_without_such_an_adapter_is_refused(watch: Watch, halves: tuple[Path, Path]) -> None:
    with pytest.raises(IncomparableReference, match="has no adapter that is champion; promote one"):
        watch(halves[1], reference="champion")


def test_languages_whose_adapter_cannot_be_compared_with_do_not_stop_the_others(
    watch: Watch, former: CurationRun, tmp_path: Path
) -> None:
    """Swahili's knows its usage, Tamil has adapters on two bases, Hindi's was trained without a selection."""
    codebook = open_artifact(former.record["codebook"])
    files = {f"reference/{key}.parquet": codebook.read_bytes(key) for key in codebook.manifest().receipts}
    files["reference/codebook.json"] = Path(codebook.url, "manifest.json").read_bytes()
    files["reference/histograms.parquet"] = to_parquet(former.histograms)
    registry = Registry(str(tmp_path / "registry"))
    other = BaseRef("acme/other", "c0ffee", "f" * 32)
    for lang, base, more in (("sw", BASE, files), ("ta", BASE, files), ("ta", other, files), ("hi", BASE, {})):
        version = registry.add(lineage(lang=lang, base=base), {**adapter_files(), **more})
        registry.set_candidate(base.key, lang, version.lineage.version)
    rows = [{"lang": lang, "text": TEMPLATES[lang].format(n)} for lang in TEMPLATES for n in range(60)]
    path, given = write_rows(tmp_path / "log.jsonl", rows), f"registry.path={registry.url}"
    told = watch(path, "text", given, reference="candidate").record["target_langs"]
    assert {lang: body["verdict"] for lang, body in told.items()} == {
        "hi": "insufficient",
        "sw": "drift",
        "ta": "insufficient",
    }
    assert f"on several bases; say which (monitor.base): {other.key}, {BASE.key}" in told["ta"]["notes"][0]
    assert "was trained without a selection" in told["hi"]["notes"][0]
    chosen = watch(path, "text", given, reference="candidate", base=other.key)
    assert chosen.verdicts == {"sw": "insufficient", "ta": "drift"}
    assert chosen.exit_code == 10
    with pytest.raises(IncomparableReference, match=r"candidate on 'none' \(monitor\.base\); promote one"):
        watch(path, "text", given, reference="candidate", base="none")
    poor = Registry(str(tmp_path / "poor"))
    poor.add(lineage(lang="hi"), adapter_files())
    poor.set_candidate(BASE.key, "hi", lineage().version)
    with pytest.raises(IncomparableReference, match="was trained without a selection"):
        watch(path, "text", f"registry.path={poor.url}", reference="candidate")


@pytest.mark.slow
def test_an_adapter_remembers_the_usage_it_was_made_for_without_the_cache(
    watch: Watch, former: CurationRun, halves: tuple[Path, Path], tiny_base: Path, tmp_path: Path
) -> None:
    """What a champion is compared with comes out of the registry: codebook, counts and names of clusters."""
    output = Path(former.path).parent.parent
    section = {
        "base": str(tiny_base),
        "languages": ["sw", "ta"],
        "max_length": 64,
        "lora": {"rank": 4, "alpha": 8},
        "training": {"batch_size": 8, "epochs": 1, "learning_rate": 0.01},
        "workers": {"parallel_languages": 1},
    }
    asked = (*_sources(halves[0]), f"adapt={json.dumps(section)}")
    registry = Registry(train_adapters(demo_config(output, *asked)).record["registry"])
    registry.promote("sw@candidate")
    quiet = f"registry={json.dumps({'path': str(tmp_path / 'quiet'), 'store_text': 'ids'})}"
    told_less = Registry(train_adapters(demo_config(output, *asked, quiet)).record["registry"]).open("sw@candidate")
    more = {"reference/labels.parquet", "reference/vectors.parquet"}
    assert set(registry.open("sw@champion").lineage.files) - set(told_less.lineage.files) == more
    path = write_rows(tmp_path / "log.jsonl", [{"lang": "sw", "text": TEMPLATES["sw"].format(n)} for n in range(60)])
    by_run = watch(path, "text").record["target_langs"]
    shutil.rmtree(output / "cache" / former.record["stages"]["codebook"]["artifact"])
    by_champion = watch(path, "text", reference="champion").record["target_langs"]
    assert set(by_champion) == {"sw"}  # Tamil's adapter is a candidate yet
    assert by_champion["sw"]["reference"] == str(registry.open("sw@champion"))
    assert by_champion["sw"]["windows"] == by_run["sw"]["windows"]
    assert by_champion["sw"]["windows"][0]["separation"] is not None
    assert by_champion["sw"]["verdict"] == "drift"
    by_counts = watch(path, "text", quiet, reference="candidate").record["target_langs"]["sw"]
    assert by_counts["windows"][0]["separation"] is None
    assert by_counts["notes"][0].startswith("reference usage has left no vectors")
    assert by_counts["verdict"] == "drift"
