#!/usr/bin/env bash
# pycld2 0.42: detect() calls valid UTF-8 invalid where the text holds a control character (U+007F, a leftover of
# terminals) or a noncharacter (U+FDD0, U+FFFE), both legal in Unicode text and in JSON. The message names invalid
# UTF-8; what CLD2 checks is whether the text is fit for interchange.
# Seen: pycld2.error "input contains invalid UTF-8 around byte 41" for a text that Python encodes without complaint.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycld2==0.42
"$folder/venv/bin/python" - <<'PY'
import json

import pycld2

plain = "the children of the village go to school "
assert pycld2.detect(plain)[2][0][1] == "en"
for character in ("\x7f", "\ufdd0", "\ufffe"):
    text = plain + character
    assert text.encode().decode() == text == json.loads(json.dumps(text))
    try:
        found = pycld2.detect(text)
    except pycld2.error as error:
        assert "invalid UTF-8" in str(error), error
        print(f"pycld2 0.42, U+{ord(character):04X}: {error}")
    else:
        raise SystemExit(f"U+{ord(character):04X} is accepted now: {found}")
PY
