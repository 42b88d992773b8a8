#!/usr/bin/env bash
# py3langid 0.4.0: texts in scripts that the model was never trained on get a label all the same, and rank() with
# normalised probabilities is sure of it. Tibetan is Dzongkha, Santali in Ol Chiki is Amharic, whose script is another.
# Seen: dz and am at 1.0. "bo" and "sat" are among no labels, so a threshold on the confidence cannot help.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check py3langid==0.4.0
"$folder/venv/bin/python" - <<'PY'
from py3langid.langid import MODEL_FILE, LanguageIdentifier

identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
texts = {"bo": "བོད་ཀྱི་སྐད་ཡིག་ནི་རྒྱ་ཆེ་བ་ཞིག་ཡིན།", "sat": "ᱥᱟᱱᱛᱟᱲᱤ ᱯᱟᱹᱨᱥᱤ ᱫᱚ ᱢᱤᱫ ᱴᱟᱝ ᱯᱟᱹᱨᱥᱤ ᱠᱟᱱᱟ"}
for language, text in texts.items():
    label, share = identifier.classify(text)
    print(f"py3langid 0.4.0: {language} is {label} at {share:.4f}; {language} a label: {language in identifier.labels}")
    assert language not in identifier.labels
    assert (language, label) in {("bo", "dz"), ("sat", "am")}, label
    assert share > 0.99, share
PY
