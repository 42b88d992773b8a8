"""Names for clusters in scripts with and without spaces; all texts are written for these tests."""

from __future__ import annotations

import itertools

import pytest

from compass_ray.sample.labels import TERMS, class_terms, function_words, terms_of

SWAHILI = {
    0: [
        "Ninawezaje kupanda mahindi wakati wa mvua za masika?",
        "Mahindi yangu yana wadudu, nifanye nini shambani?",
        "Ni mbolea gani nzuri kwa mahindi kwenye shamba dogo?",
        "Mvua imechelewa, je nipande mahindi sasa?",
    ],
    1: [
        "Nina homa na kichwa kinauma, niende hospitali?",
        "Dalili za malaria kwa mtoto ni zipi?",
        "Dawa ya malaria inapatikana hospitali gani?",
        "Mtoto ana homa kali usiku, nipe ushauri",
    ],
    2: [
        "Simu yangu haiwaki, nifanye nini?",
        "Jinsi ya kutuma pesa kwa simu",
        "Nimesahau namba ya siri ya simu yangu ya pesa",
        "Simu imeibiwa, nizuieje akaunti ya pesa?",
    ],
}

TAMIL = {
    0: [
        "நெல் பயிருக்கு எந்த உரம் நல்லது?",
        "நெல் அறுவடை எப்போது செய்ய வேண்டும்?",
        "மழை இல்லாமல் நெல் பயிர் வாடுகிறது",
        "உரம் இல்லாமல் நெல் வளர்ப்பது எப்படி?",
    ],
    1: [
        "குழந்தைக்கு காய்ச்சல் இருந்தால் என்ன மருந்து கொடுக்கலாம்?",
        "காய்ச்சல் குறைய என்ன செய்வது?",
        "மருத்துவமனை எங்கே உள்ளது, காய்ச்சல் அதிகம்",
        "தலைவலி மருந்து எங்கே கிடைக்கும்?",
    ],
    2: [
        "கைபேசி வேலை செய்யவில்லை, எப்படி சரி செய்வது?",
        "புதிய கைபேசி எது வாங்கலாம்?",
        "கைபேசி மின்கலம் விரைவில் தீர்கிறது",
        "பழைய கைபேசி விற்க வேண்டும்",
    ],
}

JAPANESE = {
    0: [
        "東京の天気予報を教えてください。",
        "明日の天気予報は雨ですか。",
        "週末の天気予報が知りたいです。",
        "台風の天気予報はどこで見られますか。",
    ],
    1: [
        "カレーライスの作り方を教えてください。",
        "おいしいカレーライスを作りたいです。",
        "野菜のカレーライスは何分煮ますか。",
        "子どもが食べるカレーライスの材料は何ですか。",
    ],
    2: [
        "新幹線の切符はどこで買えますか。",
        "京都まで新幹線で何時間ですか。",
        "新幹線の座席を予約したいです。",
        "新幹線に遅れたらどうなりますか。",
    ],
}

CHINESE = {
    0: ["如何预防流行感冒?", "流行感冒需要吃什么药?", "孩子得了流行感冒怎么办", "流行感冒会传染给老人吗"],
    1: ["股票市场今天为什么下跌?", "新手怎么进入股票市场", "股票市场的风险有多大", "股票市场几点开盘"],
    2: ["红烧茄子怎么做好吃?", "红烧茄子要放多少糖", "做红烧茄子先炸还是先煮", "没有酱油能做红烧茄子吗"],
}

THAI = {
    0: ["ปลูกข้าวหอมมะลิเดือนไหนดี", "ข้าวหอมมะลิใช้ปุ๋ยอะไร", "ราคาข้าวหอมมะลิวันนี้", "โรคในข้าวหอมมะลิรักษาอย่างไร"],
    1: ["ลูกเป็นไข้เลือดออกต้องทำอย่างไร", "อาการไข้เลือดออกมีอะไรบ้าง", "ป้องกันไข้เลือดออกที่บ้าน", "ไข้เลือดออกกี่วันหาย"],
    2: ["ซ่อมจักรยานที่ไหนดี", "จักรยานยางแบนทำอย่างไร", "ราคาจักรยานมือสอง", "ขี่จักรยานลดน้ำหนักได้ไหม"],
}

CORPORA = {"sw": SWAHILI, "ta": TAMIL, "ja": JAPANESE, "zh": CHINESE, "th": THAI}


@pytest.mark.parametrize(
    ("lang", "telling"),
    [
        ("sw", ["mahindi", "malaria", "simu"]),
        ("ta", ["நெல்", "காய்ச்சல்", "கைபேசி"]),
    ],
)
def test_labels_of_spaced_scripts_hold_the_word_that_tells_the_topic(lang: str, telling: list[str]) -> None:
    labels = class_terms(CORPORA[lang], lang)
    assert [word in labels[topic] for topic, word in enumerate(telling)] == [True] * 3, labels


@pytest.mark.parametrize(
    ("lang", "telling"),
    [
        ("ja", ["天気予報", "カレーライス", "新幹線"]),
        ("zh", ["流行感冒", "股票市场", "红烧茄子"]),
        ("th", ["ข้าวหอมมะลิ", "ไข้เลือดออก", "จักรยาน"]),
    ],
)
def test_labels_of_unspaced_scripts_are_pieces_of_the_topics_word(lang: str, telling: list[str]) -> None:
    labels = class_terms(CORPORA[lang], lang)
    for topic, word in enumerate(telling):
        assert any(term in word or word in term for term in labels[topic]), labels[topic]


@pytest.mark.parametrize(
    ("lang", "topic", "word"), [("zh", 0, "流行感冒"), ("zh", 1, "股票市场"), ("ja", 0, "天気予報")]
)
def test_a_word_of_four_characters_is_shown_whole(lang: str, topic: int, word: str) -> None:
    assert word in class_terms(CORPORA[lang], lang)[topic]


@pytest.mark.parametrize("lang", CORPORA)
def test_a_label_never_names_the_topic_of_another_class(lang: str) -> None:
    labels = class_terms(CORPORA[lang], lang)
    for one, other in itertools.permutations(labels, 2):
        assert not set(labels[one]) & set(labels[other])


@pytest.mark.parametrize("lang", CORPORA)
def test_every_term_occurs_in_its_class_and_holds_no_other_term(lang: str) -> None:
    for topic, terms in class_terms(CORPORA[lang], lang).items():
        assert 1 <= len(terms) <= TERMS
        text = "\n".join(CORPORA[lang][topic]).lower()
        assert all(term in text for term in terms)
        assert not any(one in other for one, other in itertools.permutations(terms, 2))


@pytest.mark.parametrize("lang", CORPORA)
def test_labels_do_not_depend_on_the_order_of_classes_or_documents(lang: str) -> None:
    corpus = CORPORA[lang]
    turned = {topic: list(reversed(corpus[topic])) for topic in reversed(corpus)}
    assert class_terms(turned, lang) == class_terms(corpus, lang)


def test_words_that_all_classes_share_are_left_out() -> None:
    texts = {
        topic: [f"please tell something about {word}", f"where is {word}, please"]
        for topic, word in enumerate(["weather", "football", "cooking", "trains", "banking", "music"])
    }
    labels = class_terms(texts)
    assert [labels[topic][0] for topic in range(6)] == ["weather", "football", "cooking", "trains", "banking", "music"]
    assert not {"please", "about", "where"} & {term for terms in labels.values() for term in terms}


def test_the_count_limits_the_terms() -> None:
    assert {len(terms) for terms in class_terms(SWAHILI, count=1).values()} == {1}


def test_a_class_without_letters_has_no_terms() -> None:
    assert class_terms({0: ["12 + 30 = ?", "!!!"], 1: ["habari za asubuhi"]})[0] == []
    assert class_terms({}) == {}
    assert class_terms({3: []}) == {3: []}


def test_one_class_alone_has_a_label() -> None:
    assert "mahindi" in class_terms({7: SWAHILI[0]})[7]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rain fell", ["rain", "fell"]),
        ("It is 25 °C", []),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # vowel signs and viramas stay in their word
        ("தமிழ்நாடு", ["தமிழ்நாடு"]),
        ("东京", ["东京"]),
        ("新幹線", ["新幹", "幹線", "新幹線"]),
        ("ください", []),  # inflections in hiragana tell nothing
        ("ラーメンの作り方", ["ラーメン"]),  # in Japanese runs of katakana and kanji are words
        ("İstanbul", ["istanbul"]),
        ("GPU价格", ["gpu", "价格"]),
        ("น้ำดี", ["น้ำดี"]),  # two graphemes, five code points
        ("", []),
    ],
)
def test_terms_are_words_or_grapheme_ngrams(text: str, expected: list[str]) -> None:
    assert terms_of(text) == expected


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        ("en", "Where is the railway?", ["railway"]),
        ("sw", "Mtoto wangu ana homa", ["mtoto", "wangu", "ana", "homa"]),
        ("zh-Hant", "表面的張力", ["表面", "張力"]),
        ("zh", "这是流行感冒吗", ["流行", "行感", "感冒", "流行感", "行感冒", "流行感冒"]),
    ],
)
def test_function_words_and_their_pieces_are_left_out_where_a_list_is_known(
    lang: str, text: str, expected: list[str]
) -> None:
    assert set(terms_of(text, lang)) == set(expected)


def test_ngrams_of_thai_are_no_pieces_of_function_words_and_end_in_no_vowel_that_leads_a_syllable() -> None:
    terms = set(terms_of("หลังจากกินไข่ไก่", "th"))
    assert {"กิน", "ไข่ไก่"} <= terms
    assert not {"หลังจาก", "หลัง", "จาก", "ลังจาก"} & terms
    assert not [term for term in terms if term[-1] in "เแโใไ"]


def test_a_language_without_a_list_keeps_all_its_words() -> None:
    assert not function_words("ta")
    assert terms_of("இது ஒரு வீடு", "ta") == ["இது", "ஒரு", "வீடு"]


def test_a_repeated_word_of_an_unspaced_script_is_shown_once_and_whole() -> None:
    """การแข่งขัน is a competition: its n-grams of four graphemes were shown, four to a label."""
    texts = {
        0: ["การแข่งขันว่ายน้ำ", "ชนะการแข่งขันเมื่อวาน", "ดูการแข่งขันสด"],
        1: ["ฝนตกหนักในกรุงเทพ", "วันนี้ฝนตกหนักไหม", "ฝนตกหนักทุกวัน"],
        2: ["ราคาข้าวหอมมะลิ", "ปลูกข้าวหอมมะลิ", "ข้าวหอมมะลิใหม่"],
    }
    assert class_terms(texts, "th") == {0: ["การแข่งขัน"], 1: ["ฝนตกหนัก"], 2: ["ข้าวหอมมะลิ"]}


def test_korean_nouns_of_two_syllables_are_terms() -> None:
    """학교 (school), 날씨 (weather), 병원 (hospital): most Korean nouns have two syllables."""
    assert terms_of("학교 날씨 병원") == ["학교", "날씨", "병원"]
