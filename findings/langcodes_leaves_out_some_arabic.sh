#!/usr/bin/env bash
# langcodes 3.5.1 with language_data 1.4.0: of the spoken varieties of Arabic, all members of the macro-language ar in
# ISO 639-3, some match Arabic and others match nothing: its table of distances (CLDR's) knows Egyptian, Moroccan, Najdi
# and Levantine, and not Mesopotamian, Gulf, Libyan, Sanaani and Ta'izzi-Adeni. Two of those are languages of FLORES.
# So it is for Chinese: Wu, Hakka and Min Nan match zh, Jin matches nothing, and Cantonese zh-Hant alone, not zh.
# Whoever looks for data of a language under its neighbours' tags passes over them, without an error.
# Seen: distance 10 or 14 and a match for arz, ary, ars, apc; 64, that of strangers, and None for acm, afb, ayl, ayn, acq.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check langcodes==3.5.1 language_data==1.4.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from langcodes import closest_supported_match, get, tag_distance

matched = {"arz": 10, "ary": 14, "ars": 14, "apc": 14}
strangers = ("acm", "afb", "ayl", "ayn", "acq")
for tag in (*matched, *strangers):
    print(tag, get(tag).display_name(), tag_distance(tag, "ar"), closest_supported_match(tag, ["ar", "en"]))
for tag, distance in matched.items():
    assert tag_distance(tag, "ar") == distance
    assert closest_supported_match(tag, ["ar", "en"]) == "ar"
for tag in strangers:
    assert tag_distance(tag, "ar") == 64 == tag_distance("yue", "zh") == tag_distance("cjy", "zh")
    assert closest_supported_match(tag, ["ar", "en"]) is None
assert closest_supported_match("wuu", ["zh", "en"]) == closest_supported_match("nan", ["zh", "en"]) == "zh"
assert closest_supported_match("yue", ["zh", "en"]) is None
assert closest_supported_match("yue", ["zh-Hant", "en"]) == "zh-Hant"
PY
