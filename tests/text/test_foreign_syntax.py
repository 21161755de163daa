import pytest

from diffgen.text.foreign_syntax import JSON, READ, TABLE, UNREAD, find_foreign

DASHED = "parameters behind one dash (give options instead)"


@pytest.mark.parametrize(
    ("prompt", "kind", "piece"),
    [
        ("a (red:1.2) barn", "weights", "(red:1.2)"),
        ("a (red, blue : .8) barn", "weights", "(red, blue : .8)"),
        ("a ((red)) barn", "weights", "((red))"),
        ("a [[red]] barn", "weights", "[[red]]"),
        ("barn <lora:style:0.7>", "LoRA tags (--lora takes files)", "<lora:style:0.7>"),
        ("barn <hypernet:x:1>", "hypernetworks", "<hypernet:x:1>"),
        ("barn embedding:easy-neg", "embeddings", "embedding:easy-neg"),
        ("a {red|blue} barn", "choices", "{red|blue}"),
        ("a {2$$red|blue} barn", "choices", "{2$$red|blue}"),
        ("a [cow|horse] in a field", "alternation", "[cow|horse]"),
        ("a __colour__ barn", "wildcards", "__colour__"),
        ("a __things/colour__ barn", "wildcards", "__things/colour__"),
        ("a [cat:dog:0.5]", "prompt editing", "[cat:dog:0.5]"),
        ("a [cat:10]", "prompt editing", "[cat:10]"),
        ("barn BREAK sea", "BREAK", "BREAK"),
        ("barn --s 30", "parameters (give options instead)", "--s 30"),
        ("barn --ar 16:9", "parameters (give options instead)", "--ar 16:9"),
        ("a barn \u2014steps 5", DASHED, "\u2014steps 5"),
        ("barn -s 30 -S 42", DASHED, "-s 30"),
        ("a {red|blue barn", "a choice that is cut", "{red|blue barn"),
        ("red|blue} barn", "a choice that is cut", "red|blue}"),
        ("${hue=!{a|b}} barn", "variables", "${hue=!{"),
        ("a ${hue} barn", "variables", "${hue}"),
        ("barn --tile", "parameters (give options instead)", "--tile"),
        ('{"prompt": "barn"}', "JSON", '"{"prompt": "barn"}"'),
        ('["barn", "sea"]', "JSON", '"["barn", "sea"]"'),
        ("prompt,negative_prompt,steps", "a table's heading", "prompt,negative_prompt,steps"),
        ("id\tprompt", "a table's heading", "id\tprompt"),
        ('"prompt","seed"', "a table's heading", '"prompt","seed"'),
    ],
)
def test_foreign_syntax_is_recognised(prompt: str, kind: str, piece: str) -> None:
    assert find_foreign([prompt])[kind].strip('"') == piece.strip('"')
    assert kind in (*READ, *UNREAD, JSON, TABLE)
    assert (kind in find_foreign([prompt], "a1111")) == (kind not in READ)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "red barn at sunset",
        "a barn (red) beside a sea [blue]",
        "a clock at 10:30, 16:9",
        "the sign says: open (since 1:30 pm)",
        "breakfast and a coffee break",
        "BREAKING waves",
        "snow -- a winter's day -- at dusk",
        "a long--long road",
        "snake_case and __ two lines",
        "a smile :-) and a frown :-(",
        "prompt, please: a barn",
        "1 < 2 > 0, a {thing}",
        "c++ | rust",
        "[a cat]",
        "it costs $5 {or so}",
        "snow \u2014like winter \u2014 at -5 degrees",
        "x-s 3, a U-S flag",
        "\U0001f431",
    ],
)
def test_plain_text_is_left_alone(prompt: str) -> None:
    assert find_foreign([prompt]) == {}


def test_every_kind_is_named_once_with_its_first_piece() -> None:
    found = find_foreign(["(a:1)", "(b:2) BREAK", "x" + "(" + "y" * 100 + ":1)"])
    assert found == {"weights": '"(a:1)"', "BREAK": '"BREAK"'}
    assert find_foreign(["(" + "y" * 100 + ":1)"])["weights"].endswith('y..."')


def test_hostile_prompts_take_no_time() -> None:
    for piece in ("(", "[", "{|", "<lora:", "__", "prompt,", "[:", " --a", '"a",', "${a", "|}"):
        find_foreign([piece * 20_000])
