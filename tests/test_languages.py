"""Language codes: whatever notation the data use, one tag inside."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from langcodes.registry_parser import parse_registry

from compass_ray.languages import (
    _FAMILIES,
    WIKIPEDIA,
    canonical_language,
    language_codes,
    language_name,
    language_refusal,
)

DATA = Path(os.environ.get("COMPASS_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.parametrize(
    ("tag", "notations"),
    [
        ("bg", ["bg", "bul", "bul_Cyrl", "Bulgarian", "bulgarian"]),
        ("en", ["en", "eng", "English", "EN", "en-US", "en_GB", "eng_Latn", "en-Latn", " en ", "en-us", "simple"]),
        ("zh", ["zh", "zho", "cmn", "zh-Hans", "zho_Hans", "zh-CN", "zh_SG", "cmn_Hani", "zh-Hani", "zho_Hani"]),
        ("zh", ["chi", "Chinese", "Simplified Chinese", "Mandarin", "Chinese (Simplified)", "zh-cn", "zh-cmn"]),
        ("zh-Hant", ["zh-Hant", "zho_Hant", "zh-TW", "zh_HK", "cmn-Hant", "Traditional Chinese", "zh-tw"]),
        ("pt", ["pt", "por", "pt_BR", "pt-PT", "por_Latn", "pt-br", "Portuguese (Brazil)"]),
        ("sw", ["sw", "swa", "swh", "swh_Latn", "sw-KE", "Swahili (individual language)"]),
        ("az", ["az", "aze", "azj", "az-Latn", "azj_Latn", "North Azerbaijani"]),
        ("ar", ["ar", "ara", "arb", "arb_Arab", "ar-EG", "Standard Arabic", "Modern Standard Arabic", "ar-sa"]),
        ("acm", ["acm", "acm_Arab", "Mesopotamian Arabic"]),
        ("azb", ["azb", "azb_Arab", "South Azerbaijani"]),
        ("sr", ["sr", "srp", "srp_Cyrl", "sr-Cyrl-RS"]),
        ("sr-Latn", ["sr-Latn", "srp_Latn", "sh", "Serbian (Latin)", "sr-ME"]),
        ("fa", ["fa", "pes", "pes_Arab", "prs_Arab", "Farsi", "Persian", "Western Persian", "fas", "per"]),
        ("ms", ["ms", "zsm_Latn", "msa", "Standard Malay", "Malay"]),
        ("fil", ["fil", "tl", "tgl", "tgl_Latn", "fil_Latn", "Filipino", "Tagalog"]),
        ("no", ["no", "nor", "nb", "nob", "nob_Latn", "nb-NO", "Norwegian", "Norwegian Bokmål", "no-no", "nb_no"]),
        ("nn", ["nn", "nno", "nno_Latn", "Norwegian Nynorsk"]),
        ("qu", ["qu", "que", "quy", "quz", "quy_Latn", "Ayacucho Quechua", "Quechua"]),
        ("ff", ["ff", "ful", "fuv", "fuc", "fuv_Latn", "Nigerian Fulfulde"]),
        ("kok", ["kok", "gom", "gom_Deva", "knn"]),
        ("bn", ["bn", "ben", "ben_Beng", "Bengali", "Bangla"]),
        ("ko", ["ko", "kor", "kor_Hang", "ko-Kore", "ko-KR", "Korean", "kor_Jamo"]),
        ("ja", ["ja", "jpn", "jpn_Jpan", "ja-JP", "ja_Hira", "jpn_Kana", "ja-Hrkt", "Japanese"]),
        ("yue", ["yue", "yue_Hant", "yue_Hani", "zh-yue", "Cantonese"]),
        ("ur", ["ur", "urd_Arab", "ur_Aran", "Urdu"]),
        ("he", ["he", "iw", "heb_Hebr", "he-il"]),
        ("id", ["id", "in", "ind_Latn"]),
        ("pa", ["pa", "pan_Guru"]),
        ("pa-Arab", ["pa-Arab", "pa-PK"]),
        ("ta", ["ta", "tam", "tam_Taml"]),
        ("th", ["th", "tha_Thai"]),
        ("sq", ["sq", "alb", "als", "als_Latn", "Tosk Albanian"]),
        ("sgs", ["bat-smg", "bat_smg", "sgs"]),
        ("lzh", ["zh-classical", "lzh", "lzh_Hani", "Literary Chinese"]),
        ("vro", ["fiu-vro", "vro"]),
        ("be", ["be", "be-x-old", "be-tarask", "bel_Cyrl"]),
        ("nan-Latn", ["nan_Latn", "nan-Latn"]),
        ("nan-Hans", ["nan_Hans", "nan_Hani", "Min Nan Chinese"]),
        ("unk-Latn", ["unk_Latn", "Enawené-Nawé"]),
        ("es", ["es", "spa", "Spanish; Castilian", "es-419", "es-mx"]),
        ("ha", ["ha", "hau_Latn", "ha-ng"]),
        ("fr", ["fr", "fra", "fre", "fr-ca", "fr_BE", "fr-ch"]),
        ("rsk", ["rsk", "rsk_Cyrl"]),  # younger than the registry of langcodes
        ("na", ["na", "nau", "Nauru"]),
        ("sw", ["swh_", "swh-"]),  # a template whose second column is empty
    ],
)
def test_all_notations_of_one_written_language_get_one_tag(tag: str, notations: list[str]) -> None:
    assert {notation: canonical_language(notation) for notation in notations} == dict.fromkeys(notations, tag)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("zh-Hans", "zh-Hant"),
        ("yue_Hani", "yue_Hans"),
        ("sr", "sr-Latn"),
        ("az", "az-Cyrl"),
        ("zh", "yue"),
        ("id", "ms"),
        ("hr", "sr"),
        ("ar", "arz"),
        ("nb", "nn"),
        ("gom_Deva", "gom_Latn"),
        ("kas_Arab", "kas_Deva"),
        ("taq_Latn", "taq_Tfng"),
        ("min_Arab", "min_Latn"),
        ("ko", "ko-Latn"),
    ],
)
def test_different_written_languages_stay_apart(one: str, other: str) -> None:
    assert canonical_language(one) != canonical_language(other)


@pytest.mark.parametrize(
    "code",
    [
        *("", "und", "mul", "mis", "zxx", "xx", "123", "englisch", "e", "zz", "-", "en us?", "und_Latn", "zxx_Zzzz"),
        *("nan", "NaN", "NA", "unk", "UNK", "None", "null", "unknown", "other", "N/A", "mixed"),  # missing values
        *("bat", "roa", "ber", "sgn", "art", "Bantu languages", "bnt_Latn", "fox"),  # families
        *("en-fr", "en_fr", "EN-FR", "de-en", "cs-en", "fr-de", "en-de", "eng-fra", "eng_Latn-fra_Latn", "en-fr-de"),
        *("zh-CHT", "zh-CHS", "sr-lat", "sr-cyr", "en-XYZW", "xx_Latn", "en_Abcd"),  # parts that are not registered
        *("qaa", "x-foo", "en__US"),
    ],
)
def test_what_is_no_known_language_is_none(code: str) -> None:
    assert canonical_language(code) is None


def test_families_are_those_of_the_registry() -> None:
    registered = {
        entry["Subtag"]
        for entry in parse_registry()
        if entry.get("Type") == "language" and entry.get("Scope") == "collection"
    }
    assert registered - {"bh", "him"} == _FAMILIES  # these two CLDR reads as Bhojpuri and Sirmauri


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("en-fr", "'en-fr' is a pair of languages (a locale is written en-FR); expected"),
        ("bat", "'bat' is a family of languages; expected"),
        ("nan", "'nan' is what tools write for a missing value (for the language add its script); expected"),
        ("xx", "'xx' is no known language; expected a BCP-47, ISO 639, FLORES or Wikipedia code or an English name"),
    ],
)
def test_a_refusal_says_what_was_found_and_what_to_write(code: str, message: str) -> None:
    assert language_refusal(code).startswith(message)


@pytest.mark.parametrize(("code", "tag"), WIKIPEDIA.items())
def test_wikipedias_own_codes_stand_for_canonical_tags(code: str, tag: str) -> None:
    assert canonical_language(tag) == tag
    if code not in ("als", "nrm", "zh-min-nan"):  # which are something else to ISO 639 and IANA
        assert canonical_language(code) == tag


_FLORES_CODES = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab
ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl bem_Latn
ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab
cmn_Hans cmn_Hant crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ekk_Latn ell_Grek eng_Latn epo_Latn
eus_Latn ewe_Latn fao_Latn fij_Latn fil_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gaz_Latn gla_Latn gle_Latn
glg_Latn gom_Deva gug_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn
ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor
kaz_Cyrl kbp_Latn kea_Latn khk_Cyrl khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn knc_Arab knc_Latn kon_Latn
kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn lus_Latn
lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr
nld_Latn nno_Latn nob_Latn npi_Deva nqo_Nkoo nso_Latn nus_Latn nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn
pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Olck
scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab snd_Deva som_Latn sot_Latn spa_Latn srd_Latn
srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tha_Thai
tir_Ethi tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tyv_Cyrl uig_Arab ukr_Cyrl umb_Latn urd_Arab
uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zgh_Tfng zsm_Latn zul_Latn
"""
FLORES = _FLORES_CODES.split()


@pytest.mark.parametrize("code", FLORES)
def test_a_canonical_tag_is_its_own_canonical_tag_and_so_is_its_name(code: str) -> None:
    tag = canonical_language(code)
    assert tag is not None
    assert canonical_language(tag) == tag
    assert canonical_language(language_name(tag)) == tag


def test_flores_codes_of_different_languages_or_scripts_do_not_collide() -> None:
    one_language = {"prs_Arab", "twi_Latn"}  # for CLDR: Persian, and Akan
    tags = [canonical_language(code) for code in FLORES if code not in one_language]
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
    ("tag", "codes"),
    [
        ("sw", ("sw", "swa", "swh", "swc")),
        ("no", ("no", "nor", "nb", "nob")),
        ("fil", ("fil", "tgl", "tl")),
        ("qu", ("qu", "que", "quy", "quz")),
        ("zh-Hant", ("zh", "zho", "cmn", "chi")),
        ("pl", ("pl", "pol")),
    ],
)
def test_a_language_is_known_by_all_codes_that_are_folded_into_it(tag: str, codes: tuple[str, ...]) -> None:
    assert language_codes(tag) == codes


@pytest.mark.parametrize(
    ("tag", "name"), [("sw", "Swahili"), ("zh-Hant", "Chinese (Traditional)"), ("zh", "Chinese"), ("ta", "Tamil")]
)
def test_tags_have_english_names(tag: str, name: str) -> None:
    assert language_name(tag) == name


@pytest.fixture(scope="module")
def linguameta() -> list[dict[str, str]]:
    """All languages of LinguaMeta, each with codes, an English name and scripts."""
    path = DATA / "linguistic" / "linguameta.tsv"
    if not path.exists():
        pytest.skip(f"no shared data at {DATA}")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.data
def test_all_but_four_of_linguameta_have_a_tag_by_either_code_which_is_its_own(
    linguameta: list[dict[str, str]],
) -> None:
    assert len(linguameta) == 7511
    tags = {row["bcp_47_code"]: canonical_language(row["bcp_47_code"]) for row in linguameta}
    assert {code for code, tag in tags.items() if tag is None} == {"nan", "unk", "phj", "zcd"}
    assert [tag for tag in tags.values() if tag and canonical_language(tag) != tag] == []
    three = [row for row in linguameta if row["iso_639_3_code"]]
    assert [row for row in three if canonical_language(row["iso_639_3_code"]) != tags[row["bcp_47_code"]]] == []


@pytest.mark.data
def test_one_script_of_linguameta_written_out_changes_no_tag_unless_cldr_expects_another(
    linguameta: list[dict[str, str]],
) -> None:
    changed, not_their_own = 0, []
    for row in linguameta:
        tag, scripts = canonical_language(row["bcp_47_code"]), row["writing_systems"].replace(",", " ").split()
        if tag and len(scripts) == 1:
            written = canonical_language(f"{row['bcp_47_code']}_{scripts[0]}")
            changed += written != tag
            not_their_own += [written] if written is None or canonical_language(written) != written else []
    assert not not_their_own
    assert changed == 78


@pytest.mark.data
def test_names_of_linguameta_are_those_of_the_codes_but_where_several_languages_share_one(
    linguameta: list[dict[str, str]],
) -> None:
    long = [row for row in linguameta if len(row["english_name"]) > 3]
    pairs = [(canonical_language(row["bcp_47_code"]), canonical_language(row["english_name"])) for row in long]
    named = [(tag, name) for tag, name in pairs if tag and name]
    assert len(named) > 0.98 * len(long)
    assert sum(tag != name for tag, name in named) < 80  # Mari, Koro, Kui: the one that CLDR or the registry calls so


@pytest.mark.data
def test_every_language_of_sib_200_has_a_tag_of_its_own_but_dari_which_cldr_calls_persian() -> None:
    if not (DATA / "sib200").exists():
        pytest.skip(f"no shared data at {DATA}")
    codes = sorted(folder.name for folder in (DATA / "sib200").iterdir() if folder.is_dir())
    tags = {code: canonical_language(code) for code in codes}
    assert None not in tags.values()
    assert tags.pop("prs_Arab") == tags["pes_Arab"]
    assert len(set(tags.values())) == len(tags)
