# SPDX-License-Identifier: Apache-2.0
"""Writes the tables that task_score_test.cpp holds our scores to: cases.jsonl and stems.csv, beside this file.

usage: python reference.py     needs Python 3.11, rouge-score==0.1.2 (which brings nltk) and the texts of configs/tasks

ROUGE and stems are rouge-score's own. F1 and exact match are SQuAD 2.0's evaluation formula, string_match_* RULER's,
written down again from their definitions. choice, exact_number and length_ratio have no implementation that the field
shares; theirs is ours, written apart from the library by regular expressions and decimals.

An output is a text, or bytes in hexadecimal ("bytes"), which the field's tools decode with errors="replace".
"""
import collections
import decimal
import json
import pathlib
import random
import re
import string

from nltk.stem import porter
from rouge_score import rouge_scorer

HERE = pathlib.Path(__file__).resolve().parent
TASKS = HERE.parents[2] / "configs/tasks"

# What F1, exact match, ROUGE, string match and the length ratio are computed of: (output, references).
PAIRS = [
    # plain
    ("The cat sat on the mat.", ["the cat is on the mat"]),
    ("the cat is on the mat", ["The cat is on the mat."]),
    ("on the mat sat the cat", ["the cat sat on the mat"]),
    ("cat", ["dog"]),
    ("cat", ["cat"]),
    ("a cat", ["cat"]),
    ("cat and dog", ["dog and cat"]),
    ("one two three four five", ["five four three two one"]),
    ("one two three", ["one two three four five six seven eight"]),
    ("one two three four five six seven eight", ["four five"]),
    # nothing on either side, articles only, punctuation only
    ("", [""]),
    ("", ["cat"]),
    ("cat", [""]),
    ("the", ["a an the"]),
    ("the", ["cat"]),
    ("cat", ["the"]),
    ("The A An", [""]),
    ("...", [""]),
    ("...", ["?!"]),
    ("...", ["cat"]),
    (" \t\n ", ["cat"]),
    ("\n", [" "]),
    ("the", ["the", "cat"]),
    ("", ["the", "cat"]),
    ("", ["", "the"]),
    ("a", ["", "an"]),
    # several references: the best one counts
    ("Paris", ["London", "Paris", "Rome"]),
    ("the city of Paris", ["Paris, France", "city of Paris", "Paris"]),
    ("Paris and Rome", ["Rome", "Paris", "Madrid", "Berlin"]),
    ("none of them", ["x", "y"]),
    # repeated words count as often as on the other side
    ("the the the the", ["the cat"]),
    ("cat cat cat", ["cat"]),
    ("cat", ["cat cat cat"]),
    ("cat dog cat dog", ["dog dog cat"]),
    ("a b a b a b", ["b a b a"]),
    ("no no no no yes", ["yes no yes no yes"]),
    # case, punctuation, hyphens, quotes, underscores
    ("U.S.A.", ["USA"]),
    ("U.S.", ["us"]),
    ("state-of-the-art", ["state of the art"]),
    ("state-of-the-art", ["stateoftheart"]),
    ("it's John's", ["its johns"]),
    ("it’s John’s", ["it's John's"]),
    ("“quoted”", ["quoted"]),
    ("'quoted'", ["quoted"]),
    ("snake_case_name", ["snake case name"]),
    ("snake_case_name", ["snakecasename"]),
    ("a_b", ["b"]),
    ("the-end", ["end"]),
    ("the—end", ["end"]),
    ("the – end", ["end"]),
    ("A/B testing", ["b testing"]),
    ("C++ and C#", ["c and c"]),
    ("AT&T", ["att"]),
    ("e-mail: a@b.org", ["email ab.org"]),
    ("100%", ["100"]),
    ("(the) [a] {an}", [""]),
    ("theory of another area", ["the theory of an other a rea"]),
    ("an apple a day", ["apple day"]),
    ("Answer:the cat", ["answer cat"]),
    ("answer:a cat", ["answera cat"]),
    ("line one\nline two\r\nline three", ["line one line two line three"]),
    ("tab\tseparated\vwords\fhere", ["tab separated words here"]),
    # numbers
    ("1,234", ["1234"]),
    ("1.5", ["15"]),
    ("1.5", ["1 5"]),
    ("-5", ["5"]),
    ("3.14159 and 2.71828", ["3.14159"]),
    ("$1,000,000.00", ["1000000.00"]),
    ("2nd 3rd", ["2nd"]),
    ("covid19 b52 4x4", ["covid 19 b 52 4 x 4"]),
    # accents, precomposed and combining
    ("café", ["cafe"]),
    ("café", ["café"]),
    ("cafe\u0301", ["café"]),
    ("cafe\u0301", ["cafe"]),
    ("a\u0301 b", ["b"]),
    ("the\u0308 b", ["b"]),
    ("ÀÉÎÕÜ", ["àéîõü"]),
    ("naïve Zoë", ["naive zoe"]),
    ("Ångström", ["ångström"]),
    ("A\u030angstro\u0308m", ["ångström"]),
    ("straße", ["STRASSE"]),
    ("STRAẞE", ["straße"]),
    ("ﬁne ﬂow", ["fine flow"]),
    # Turkish: dotted and dotless i
    ("İstanbul", ["istanbul"]),
    ("İSTANBUL", ["i\u0307stanbul"]),
    ("ılık", ["ilik"]),
    ("ILIK", ["ılık"]),
    ("DİYARBAKIR", ["diyarbakir"]),
    # Greek: the sigma at a word's end
    ("ΟΔΥΣΣΕΥΣ", ["οδυσσευς"]),
    ("ΟΔΥΣΣΕΥΣ", ["οδυσσευσ"]),
    ("ΟΔΟΣ ΣΟΦΙΑΣ.", ["οδος σοφιας"]),
    ("Σ", ["σ"]),
    ("ΑΣ'", ["ας"]),
    ("ΑΣ'Α", ["ασα"]),
    ("ΑΣ\u0301 ΑΣ.Α", ["ας\u0301 ασα"]),
    ("ΣΑΣ 1Σ", ["σας 1σ"]),
    ("ΑΣ\u00adΒ", ["ασ\u00adβ"]),
    # Cyrillic, Hebrew, Arabic, Devanagari, Thai, Chinese, Japanese, Korean
    ("МОСКВА, столица", ["москва столица"]),
    ("ירושלים היא בירה", ["ירושלים"]),
    ("القاهرة هي العاصمة", ["القاهرة"]),
    ("नई दिल्ली राजधानी", ["नई दिल्ली"]),
    ("กรุงเทพ", ["กรุงเทพ"]),
    ("北京是中国的首都", ["北京"]),
    ("北京 是 中国 的 首都", ["北京 的 首都"]),
    ("北京。", ["北京"]),
    ("東京、大阪", ["東京 大阪"]),
    ("서울은 수도이다", ["서울은"]),
    # wide letters and digits, other digits, roman numerals, fractions, circled letters
    ("ＡＢＣ １２３", ["abc 123"]),
    ("ＡＢＣ １２３", ["ａｂｃ １２３"]),
    ("ｔｈｅ ｃａｔ", ["ｃａｔ"]),
    ("the！cat", ["！cat"]),
    ("٣٤ the४५ the", ["٣٤ the४५"]),
    ("½ the½ a²", ["½ the½ a²"]),
    ("Ⅷ Ⓐ", ["ⅷ ⓐ"]),
    ("the① the", ["the①"]),
    ("Kelvin K Å", ["kelvin k å"]),
    ("ǅungla Ǉ", ["ǆungla ǉ"]),
    # white space and what isn't
    ("a\u00a0cat", ["cat"]),
    ("one\u3000two", ["one two"]),
    ("one\u2003two\u2028three\u2029four", ["one two three four"]),
    ("one\u200btwo", ["one two"]),
    ("one\u200btwo", ["one\u200btwo"]),
    ("one\u0085two\u001ctwo\u001ftwo", ["one two two two"]),
    ("one\u180etwo\u2060two", ["one two two"]),
    ("\ufeffcat", ["cat"]),
    ("the\u200bcat", ["\u200bcat"]),
    ("the\u2011cat", ["\u2011cat"]),
    # symbols
    ("😀 the 😀", ["😀 😀"]),
    ("a😀", ["😀"]),
    ("👩\u200d👩\u200d👧 family", ["family"]),
    ("x ≤ y", ["x y"]),
    ("a → b", ["→ b"]),
    ("€ 5", ["5"]),
    # stems: rouge_score leaves words of three letters alone
    ("running runs ran runner", ["run run ran run"]),
    ("dying lying tying died tied skies", ["die lie tie die tie sky"]),
    ("happily happiness happy enjoyed enjoying", ["happy happy happy enjoy enjoy"]),
    ("relational conditional rationalization", ["relate condition rational"]),
    ("generalizations of hopefulness", ["generalize hopeful"]),
    ("flies flied ties", ["fly fly tie"]),
    ("geology geological biologically", ["geologist geologic biology"]),
    ("was has its this", ["wa ha it thi"]),
    ("proceed exceed succeed news innings", ["proceeds exceeding succeeded new inning"]),
    ("The committees agreed on controlling the prices of agricultural commodities.",
     ["Committee agreement: to control prices for the agriculture commodity."]),
    # whole sentences
    ("The professor told the team that the chip schedule kept getting pushed.",
     ["The professor said the chip's schedule was pushed back again, and the team agreed."]),
    ("He was born in 1879 in Ulm, in the Kingdom of Württemberg in the German Empire.",
     ["Ulm, Kingdom of Württemberg", "in Ulm", "1879"]),
]

# Outputs that are cut inside a code point, or aren't text at all.
BROKEN = [
    (b"caf\xc3", ["caf"]),
    (b"caf\xc3", ["caf\ufffd"]),
    (b"cat \xe5\x8c", ["cat"]),
    (b"cat \xe5\x8c", ["cat \ufffd"]),
    (b"\xe5\x8c\x97\xe4\xba", ["北\ufffd"]),
    (b"\xf0\x9f\x98 x", ["\ufffd x"]),
    (b"\xf0\x9f x", ["\ufffd x"]),
    (b"\xf0\x80\x80 x", ["\ufffd\ufffd\ufffd x"]),
    (b"\xed\xa0\x80", ["\ufffd\ufffd\ufffd"]),
    (b"\xff\xfe the\x80cat", ["\ufffdcat"]),
    (b"\xc0\xaf\xe0\x80\xaf", ["\ufffd\ufffd\ufffd\ufffd\ufffd"]),
    (b"\xf4\x90\x80\x80 A\xce", ["\ufffd\ufffd\ufffd\ufffd \ufffd"]),
]

CHOICES = [
    ("A", "A"), ("B.", "B"), ("(C) because", "C"), ("The right option is D.", "D"), ("the answer is B", "B"),
    ("Answer: B", "B"), ("Both A and B", "B"), ("a", "A"), ("", "A"), ("E", "A"), ("**C**", "C"), ("Option C", "C"),
    ("none", "D"), ("Ａ", "A"), ("Д", "D"), ("1. D", "D"), ("B", "b"),
]

NUMBERS = [
    ("42", "42"), ("Answer: 42", "42"), ("The answer is 42.", "42"), ("Answer: 42, not 43", "42"),
    ("41, then 42", "42"), ("42, then 41", "42"), ("Answer: 41. Answer: 42", "42"),
    ("Answer: none, but 42 before", "42"), ("Answer:", "42"), ("5 Answer: no number", "5"), ("", "42"),
    ("no number", "42"), ("-5", "-5"), ("-5", "5"), ("minus 5", "-5"), ("- 5", "-5"), ("10-5", "-5"), ("10-5", "5"),
    ("\u22125", "-5"), ("\u22125", "5"), ("-0", "0"), ("-0.0", "0"), ("3.0", "3"), ("3.", "3"), ("3.10", "3.1"),
    ("3.14", "3.1"), ("0.5", ".5"), (".5", "0.5"), ("007", "7"), ("1.5.2", "1.5"), ("1.5.2", "2"), ("1,234", "1234"),
    ("1,234,567.50", "1234567.5"), ("1,23", "1"), ("1,23", "23"), ("1,2345", "2345"), ("1,2345", "12345"),
    ("12,345", "12345"), ("1, 234", "234"), (",234", "234"), ("1,234,56", "56"), ("0,123", "123"), ("$1,000", "1000"),
    ("50%", "50"), ("1e3", "3"), ("1e3", "1000"), ("2^10 = 1024", "1024"), ("9007199254740993", "9007199254740992"),
    ("9007199254740993", "9007199254740993"), ("1" + "0" * 400, "1" + "0" * 400), ("1" + "0" * 400, "0"),
    ("0." + "0" * 400 + "1", "0"), ("0.1000000000000000000001", "0.1"), ("٤٢", "42"), ("４２", "42"),
    ("Answer: -7 apples", "-7"), ("answer: 1 and 2", "1"), ("answer: 1 and 2", "2"), ("Answer: 1/2", "1"),
    ("no", "none"), ("Final Answer: **12**", "12"), ("Answer: \\boxed{12}", "12"), ("x--5", "-5"), ("5-", "5"),
    ("-", "5"), ("3.5-", "3.5"),
]


def drawn_pairs(count):
    """Pairs of few words, so that many are common, with what separates words drawn, too."""
    draw = random.Random(20261127)
    words = ["the", "a", "an", "The", "cat", "Cats", "cat", "running", "ran", "1,000", "1000", "x.y", "and", "An", "é",
             "flies"]
    gaps = [" ", " ", " ", ", ", ". ", "-", "\n", "\u00a0", "—"]

    def text():
        return "".join(draw.choice(words) + draw.choice(gaps) for _ in range(draw.randrange(9)))

    return [(text(), [text() for _ in range(draw.randrange(1, 4))]) for _ in range(count)]


def squad_words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad(output, references, score):
    words = squad_words(output)
    wanted = [w for w in map(squad_words, references) if w] or [[]]
    return max(score(words, w) for w in wanted)


def f1(output, reference):
    if not output or not reference:
        return float(output == reference)
    common = sum((collections.Counter(output) & collections.Counter(reference)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(output), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def rouge(output, references):
    values = {}
    for stem in (False, True):
        scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
        for name, score in scorer.score_multi(references, output).items():
            values[name + ("_stem" if stem else "")] = score.fmeasure
    return values


def length_ratio(output, reference):
    words, wanted = len(output.split()), len(reference.split())
    return 1.0 if words == wanted == 0 else words / max(wanted, 1)


def values_of_pair(output, references):
    found = [reference.lower() in output.lower() for reference in references]
    return {**rouge(output, references), "f1": squad(output, references, f1),
            "exact_match": squad(output, references, lambda a, b: float(a == b)),
            "string_match_all": sum(found) / len(found), "string_match_part": float(any(found)),
            "length_ratio": length_ratio(output, references[0])}


def choice(output, reference):
    found = re.search("[ABCD]", output)
    return float(found is not None and found[0] == reference)


def stated_number(text):
    before, marker, after = text.rpartition("Answer:")
    plain = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", after if marker else text)
    found = re.findall(r"-?[0-9]+(?:\.[0-9]*)?", plain)
    return decimal.Decimal(found[0 if marker else -1]) if found else None


def exact_number(output, reference):
    found = stated_number(output)
    return float(found is not None and found == stated_number(reference))


def lines():
    for output, references in PAIRS + drawn_pairs(60):
        yield {"output": output, "references": references, "values": values_of_pair(output, references)}
    for data, references in BROKEN:
        values = values_of_pair(data.decode(errors="replace"), references)
        yield {"bytes": data.hex(), "references": references, "values": values}
    for output, reference in CHOICES:
        yield {"output": output, "references": [reference], "values": {"choice": choice(output, reference)}}
    for output, reference in NUMBERS:
        yield {"output": output, "references": [reference], "values": {"exact_number": exact_number(output, reference)}}


def words_to_stem():
    """Words of the committed tasks that stemming changes, and the rules' endings behind stems of any measure."""
    texts = [json.loads(line) for file in sorted(TASKS.glob("*.jsonl")) for line in file.read_text().splitlines()]
    words = set(re.findall("[a-z0-9]+", " ".join(t["context"] for t in texts).lower()))
    stemmer = porter.PorterStemmer()
    words = {w for w in words if len(w) > 3 and stemmer.stem(w) != w}
    endings = ("s ies sses ss ed ied eed ing y ational tional enci anci izer bli alli entli eli ousli ization ation "
               "ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness "
               "al ance ence er ic able ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize e ll le ating "
               "bling izing tting lling ssed zzed ally ology ically yed ying").split()
    starts = ["", "b", "o", "y", "by", "ox", "ho", "tr", "sky", "tree", "oat", "trou", "hop", "box", "priv", "oaten",
              "contr", "syzyg", "gener", "aab", "ii", "xyl"]
    words |= {start + ending for start in starts for ending in endings}
    words |= set("sky skies dying lying tying news inning innings outing outings canning cannings howe proceed exceed "
                 "succeed proceeds skied 2nd covid19 x2ing as is".split())
    return sorted(words)


def main():
    with open(HERE / "cases.jsonl", "w") as file:
        for line in lines():
            file.write(json.dumps(line) + "\n")
    stemmer = porter.PorterStemmer()
    with open(HERE / "stems.csv", "w") as file:
        file.write("word,stem\n")
        for word in words_to_stem():
            file.write(f"{word},{stemmer.stem(word)}\n")


if __name__ == "__main__":
    main()
