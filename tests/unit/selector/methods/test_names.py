"""The names of methods, their options and chains, and the selectors that some need."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from selector.methods.names import MethodName, parse_selectors, require_selectors
from selector.methods.registry import parse_methods


def test_names_are_parsed_with_the_oracles_layers():
    names = parse_methods(
        "random, oracle,oracle[embeddings,hirescam] ,oracle-predicted", "blocks.-1.mlp", "gradcam"
    )
    assert [str(name) for name in names] == [
        "random",
        "oracle[blocks.-1.mlp,gradcam]",
        "oracle[embeddings,hirescam]",
        "oracle-predicted[blocks.-1.mlp,gradcam]",
    ]
    canonical = ",".join(map(str, names))
    assert parse_methods(canonical, "embeddings", "fem") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("random,nonsense", "unknown method 'nonsense': the known ones are random"),
        ("lite[embeddings,gradcam]", "the name of one selector"),
        ("lite[]", "the name of one selector"),
        ("random[x]", "random takes no brackets"),
        ("attention[0]", r"attention takes \[blocks.N\]"),
        ("attention[blocks.1,blocks.2]", r"attention takes \[blocks.N\]"),
        ("oracle-second[embeddings]", r"needs its \[layer,method\]"),
        ("oracle[embeddings]", r"needs its \[layer,method\]"),
        ("oracle[embeddings,fem,x]", r"needs its \[layer,method\]"),
        ("lite[x],lite[x]", "twice"),
        ("random,random", "twice"),
        ("oracle,oracle[embeddings,gradcam]", "twice"),
    ],
)
def test_wrong_names_are_refused_and_the_known_ones_listed(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_methods(text, "embeddings", "gradcam")


def test_lite_is_named_after_its_selector():
    names = parse_methods("lite,lite[hi-res_2]", "embeddings", "gradcam")
    assert names == (MethodName("lite"), MethodName("lite", ("hi-res_2",)))
    assert [str(name) for name in names] == ["lite", "lite[hi-res_2]"]


def test_the_spread_one_goes_by_the_same_selector():
    names = parse_methods("lite-spread,lite-spread[x],lite[x],random", "embeddings", "gradcam")
    assert [str(name) for name in names] == ["lite-spread", "lite-spread[x]", "lite[x]", "random"]
    assert [name.selected_by for name in names] == ["lite", "lite[x]", "lite[x]", None]
    require_selectors(names, ["lite", "lite[x]"])


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], {}),
        (["a/b"], {"lite": "a/b"}),
        (["x=a", "b", "y=c=d"], {"lite[x]": "a", "lite": "b", "lite[y]": "c=d"}),
        (["runs/lr=3"], {"lite": "runs/lr=3"}),
        (["./lr=3"], {"lite": "./lr=3"}),
    ],
)
def test_selectors_are_a_folder_or_a_name_with_a_folder(texts, found):
    assert parse_selectors(texts) == found


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", "b"], "two selectors for method lite, 'a' and 'b'"),
        (["x=a", "x=a"], r"two selectors for method lite\[x\]"),
        (["x="], "DIR or NAME=DIR, got 'x='"),
        ([""], "DIR or NAME=DIR, got ''"),
    ],
)
def test_selectors_that_cannot_be_told_apart_are_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_selectors(texts)


@pytest.mark.parametrize(
    ("methods", "given", "message"),
    [
        ("random,lite[x]", ["lite"], r"method lite\[x\] needs .* --selector x=DIR"),
        ("lite-spread[x]", [], r"method lite-spread\[x\] needs .* --selector x=DIR"),
        ("lite,lite[x]", ["lite[x]"], "method lite needs .* --selector DIR"),
        ("lite", ["lite", "lite[x]"], r"given for lite\[x\], which is none of the methods lite:"),
        ("random", ["lite"], "given for lite, which is none of the methods random:"),
    ],
)
def test_every_lite_has_a_selector_and_every_selector_a_lite(methods, given, message):
    with pytest.raises(ConfigError, match=message):
        require_selectors(parse_methods(methods, "embeddings", "gradcam"), given)


def test_a_chain_is_one_method_before_the_blocks_and_one_inside():
    (chain,) = parse_methods("lite[x] + tome[prop-attn, inflect=-1]", "embeddings", "gradcam")
    assert str(chain) == "lite[x]+tome[inflect=-1,prop-attn]"
    assert chain == MethodName("lite", ("x",), MethodName("tome", ("inflect=-1", "prop-attn")))
    assert chain.selected_by == "lite[x]"
    assert not chain.predicts_values


@pytest.mark.parametrize("text", ["tome+lite", "random+lite", "tome+tome", "random+tome+tome"])
def test_other_chains_are_refused(text):
    with pytest.raises(ConfigError, match=r"one inside them \(tome, "):
        parse_methods(text, "embeddings", "gradcam")


@pytest.mark.parametrize("inside", ["inflect=2", "inflect=x", "2", "prop", ""])
def test_wrong_options_of_tome_are_refused(inside):
    with pytest.raises(ConfigError, match=r"tome takes \[inflect=-1..1,prop-attn,.*, not"):
        parse_methods(f"tome[{inside}]", "embeddings", "gradcam")


def test_a_constant_schedule_needs_no_mention():
    assert parse_methods("tome[inflect=0]", "embeddings", "gradcam") == (MethodName("tome"),)


def test_a_random_class_has_several_seeds_and_the_runner_up_one():
    names = parse_methods("oracle-second,oracle-wrong", "embeddings", "gradcam")
    assert [name.is_random for name in names] == [False, True]


@pytest.mark.parametrize(
    ("inside", "name"),
    [
        ("merge=600:200:100", "merge=6:2:1"),
        ("merge=5", "blocks=1"),
        ("merge=2:2", "blocks=2"),
        ("blocks=3", "blocks=3"),
    ],
)
def test_shares_of_vid_tldr_are_in_lowest_terms(inside, name):
    (found,) = parse_methods(f"vid-tldr[{inside}]", "embeddings", "gradcam")
    assert str(found) == f"vid-tldr[{name}]"


@pytest.mark.parametrize("inside", ["merge=6:0", "merge=6:", "merge=-1", "blocks=2:1", "6:2", ""])
def test_wrong_shares_of_vid_tldr_are_refused(inside):
    with pytest.raises(ConfigError, match=r"vid-tldr takes \[blocks=4\|merge=6:2:1\]: how many"):
        parse_methods(f"vid-tldr[{inside}]", "embeddings", "gradcam")
