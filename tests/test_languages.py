"""Language codes: whatever notation the data use, one tag inside."""

from __future__ import annotations

import pytest

from compass_ray.languages import canonical_language, language_name


@pytest.mark.parametrize(
    ("tag", "notations"),
    [
        ("bg", ["bg", "bul", "bul_Cyrl", "Bulgarian", "bulgarian"]),
        ("en", ["en", "eng", "English", "EN", "en-US", "en_GB", "eng_Latn", "en-Latn", " en "]),
        ("zh", ["zh", "zho", "cmn", "zh-Hans", "zho_Hans", "zh-CN", "zh_SG"]),
        ("zh-Hant", ["zh-Hant", "zho_Hant", "zh-TW", "zh_HK", "cmn-Hant"]),
        ("pt", ["pt", "por", "pt_BR", "pt-PT", "por_Latn"]),
        ("sw", ["sw", "swa", "swh", "swh_Latn", "sw-KE"]),
        ("az", ["az", "aze", "azj", "az-Latn", "azj_Latn"]),
        ("ar", ["ar", "ara", "arb", "arb_Arab", "ar-EG"]),
        ("sr", ["sr", "srp", "srp_Cyrl", "sr-Cyrl-RS"]),
        ("sr-Latn", ["sr-Latn", "srp_Latn", "sh"]),
        ("fa", ["fa", "pes", "pes_Arab", "prs_Arab"]),
        ("ms", ["ms", "zsm_Latn", "msa"]),
        ("he", ["he", "iw", "heb_Hebr"]),
        ("id", ["id", "in", "ind_Latn"]),
        ("pa", ["pa", "pan_Guru"]),
        ("pa-Arab", ["pa-Arab", "pa-PK"]),
        ("ta", ["ta", "tam", "tam_Taml"]),
        ("th", ["th", "tha_Thai"]),
        ("ja", ["ja", "jpn", "jpn_Jpan", "ja-JP"]),
    ],
)
def test_all_notations_of_one_written_language_get_one_tag(tag: str, notations: list[str]) -> None:
    assert {notation: canonical_language(notation) for notation in notations} == dict.fromkeys(notations, tag)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("zh-Hans", "zh-Hant"),
        ("sr", "sr-Latn"),
        ("az", "az-Cyrl"),
        ("zh", "yue"),
        ("id", "ms"),
        ("hr", "sr"),
        ("ar", "arz"),
    ],
)
def test_different_written_languages_stay_apart(one: str, other: str) -> None:
    assert canonical_language(one) != canonical_language(other)


@pytest.mark.parametrize("code", ["", "und", "mul", "mis", "zxx", "xx", "123", "englisch", "e", "zz", "-", "en us?"])
def test_what_is_no_known_language_is_none(code: str) -> None:
    assert canonical_language(code) is None


_FLORES_CODES = """
ace_Arab ace_Latn afr_Latn amh_Ethi arb_Arab arz_Arab asm_Beng azj_Latn bel_Cyrl ben_Beng bod_Tibt bos_Latn
cat_Latn ces_Latn ckb_Arab deu_Latn ekk_Latn ell_Grek est_Latn eus_Latn fin_Latn fra_Latn gaz_Latn hau_Latn
heb_Hebr hin_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ind_Latn jpn_Jpan kas_Arab kas_Deva khk_Cyrl khm_Khmr
kmr_Latn kor_Hang lao_Laoo lvs_Latn mar_Deva mya_Mymr nno_Latn nob_Latn npi_Deva ory_Orya pes_Arab plt_Latn
quy_Latn rus_Cyrl sin_Sinh som_Latn spa_Latn srp_Cyrl swh_Latn tam_Taml taq_Tfng tha_Thai tgl_Latn tur_Latn
uig_Arab ukr_Cyrl urd_Arab uzn_Latn vie_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
"""
FLORES = _FLORES_CODES.split()


@pytest.mark.parametrize("code", FLORES)
def test_a_canonical_tag_is_its_own_canonical_tag(code: str) -> None:
    tag = canonical_language(code)
    assert tag is not None
    assert canonical_language(tag) == tag


def test_flores_codes_of_different_languages_or_scripts_do_not_collide() -> None:
    same = {"est_Latn"}  # FLORES+ renamed it to ekk_Latn
    tags = [canonical_language(code) for code in FLORES if code not in same]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    ("individual", "macro"),
    [("npi_Deva", "ne"), ("ory_Orya", "or"), ("plt_Latn", "mg"), ("uzn_Latn", "uz"), ("lvs_Latn", "lv")],
)
def test_the_flores_code_of_a_macrolanguages_main_member_is_the_macrolanguage(individual: str, macro: str) -> None:
    assert canonical_language(individual) == macro


def test_southern_pashto_as_flores_writes_it_is_pashto() -> None:
    assert canonical_language("pbt_Arab") == canonical_language("ps")


@pytest.mark.parametrize(
    ("tag", "name"), [("sw", "Swahili"), ("zh-Hant", "Chinese (Traditional)"), ("zh", "Chinese"), ("ta", "Tamil")]
)
def test_tags_have_english_names(tag: str, name: str) -> None:
    assert language_name(tag) == name
