"""The tokenizer of a static encoder: one alphabet for most scripts, then pieces of words.

A name or a loan word is spelt much alike in many languages once its letters are: so letters of alphabets and
abugidas become Latin letters (AnyAscii's tables), marks on letters fall away, and the pieces are learnt on what is
left. Han, kana, Hangul, Arabic and Hebrew stay as they are, but for vowel points: without vowels, or with one sign
for many sounds, a Latin spelling says less than they do. All of it ends up in ``tokenizer.json``: inference needs
nothing of this module.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

UNKNOWN = "<unk>"
SPACE = "\u2581"
"""What Metaspace puts before each word; a piece of its own where the word begins with nothing known."""
_KEPT = ("CJK ", "HANGUL ", "IDEOGRAPHIC ", "KANGXI ", "HIRAGANA ", "KATAKANA ", "ARABIC ", "HEBREW ")
_LAST_PLANE_0 = 0xFFFF
_PENALTY = 1e-4
"""What UnigramTrainer adds to the score of one rare character after the other."""
_SAME = 1e-5
_ERRORS_ONLY = 2


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_piece_length: int) -> Tokenizer:
    """Train a Unigram tokenizer (Kudo, 2018) behind :func:`normalizer`, with pieces inside words.

    Pieces are learnt word by word, so a space is only ever their first character, and the best segmentation of a
    text is that of its words: the finished tokenizer takes texts whole, which saves a third of its time on short ones.
    Deterministic: the same texts in the same order give the same pieces.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=[UNKNOWN],
        unk_token=UNKNOWN,
        max_piece_length=max_piece_length,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return _in_order(tokenizer)


def _in_order(tokenizer: Tokenizer) -> Tokenizer:
    """Give the tokenizer one order of pieces, and one score for each.

    The trainer's own depend on its hash tables, which are seeded anew each time: pieces of equal score come in any
    order, scores differ in their last bits, and characters that were too rare for a score of their own get the
    lowest one plus a ten-thousandth for each character before them; here, all of these get the lowest.
    """
    plain = json.loads(tokenizer.to_str())
    [unknown, *scored] = plain["model"]["vocab"]
    lowest = min((score for _, score in scored), default=0.0)
    above = {piece: (score - lowest) / _PENALTY for piece, score in scored if len(piece) == 1}
    numbers = {round(steps): piece for piece, steps in above.items() if abs(steps - round(steps)) < _SAME}
    rare = {numbers[number] for number in itertools.takewhile(numbers.__contains__, itertools.count())}
    rounded = [[piece, round(lowest if piece in rare else score, 4)] for piece, score in scored]
    plain["model"]["vocab"] = [unknown, *sorted(rounded, key=lambda row: (-row[1], row[0]))]
    return Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))


def normalizer() -> normalizers.Normalizer:
    """Build NFKC, lower case, then the letters of :func:`latin_letters`.

    The letters are in one table of the SentencePiece kind.
    """
    import sentencepiece
    from sentencepiece.sentencepiece_model_pb2 import NormalizerSpec

    sentencepiece.set_min_log_level(_ERRORS_ONLY)
    table = sentencepiece.SentencePieceNormalizer(norm_map=list(latin_letters().items()))
    spec = NormalizerSpec.FromString(table.serialized_normalizer_spec())
    return normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Precompiled(spec.precompiled_charsmap)]
    )


def latin_letters() -> dict[str, str]:
    """Find what characters of the basic plane become after NFKC and lower-casing. Those that stay are left out."""
    from anyascii import anyascii

    letters = {}
    for code in range(0x80, _LAST_PLANE_0 + 1):
        character = chr(code)
        if unicodedata.normalize("NFKC", character).lower() != character:
            continue  # not there any more after NFKC and lower-casing
        name = unicodedata.name(character, "")
        if not name or unicodedata.category(character)[0] not in "LMN":
            continue
        if not name.startswith(_KEPT):
            latin = anyascii(character).lower()
            if latin or unicodedata.combining(character):
                letters[character] = latin
        elif unicodedata.combining(character):
            letters[character] = ""
    return letters


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """List the ids of each text, without unknown pieces."""
    unknown = tokenizer.token_to_id(UNKNOWN)
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array([i for i in encoding.ids if i != unknown], dtype=np.int32) for encoding in encodings]


def keep_pieces(tokenizer: Tokenizer, kept: NDArray[np.bool_]) -> Tokenizer:
    """Keep some of the tokenizer's pieces alone, renumbered in the same order."""
    plain = json.loads(tokenizer.to_str())
    plain["model"]["vocab"] = [row for row, keep in zip(plain["model"]["vocab"], kept, strict=True) if keep]
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] == UNKNOWN]
    return Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))
