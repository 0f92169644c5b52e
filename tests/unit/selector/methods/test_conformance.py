"""Every method keeps the promises of `tests/conformance/methods.py`, on every backbone it fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.backbones import Backbone, load_backbone
from pipeline.errors import ConfigError, UnreachableBudgetError
from selector.methods.cost import CostModel
from selector.methods.registry import METHODS, Parts, make_method, parse_method
from tests.checkpoints import KIND_SIZES, KINDS, save_videomae
from tests.conformance.methods import MethodTests
from tests.lite_models import make_selector

DIVIDED = "TimeSformer, divided"
JOINT = tuple(name for name in KINDS if name != DIVIDED)
"""Where every token attends to every other, so that tokens can merge."""
BEFORE = (
    "random",
    "uniform",
    "lite",
    "lite-spread",
    "prior",
    "prior-spread",
    "attention",
    "attention[blocks.-1]",
    "motion",
    "motion-pixels",
    "evs",
    "fluxvit",
    "random-tube",
    "random-frame",
    "uniform-tube",
    "uniform-frame",
    "lite-tube",
    "lite-frame",
    "oracle-predicted[embeddings,hirescam]",
    "oracle-second[embeddings,hirescam]",
)
LABELLED = (
    "oracle[embeddings,hirescam]",
    "oracle[embeddings,occlusion]",
    "oracle-wrong[embeddings,hirescam]",
)
INSIDE = (
    "tome",
    "tome[inflect=-1,prop-attn]",
    "tome[inflect=1]",
    "tome[drop]",
    "tome[hybrid=0.2]",
    "tome[random-merge]",
    "tome[random-drop]",
    "pitome",
    "pitome[plain,prop-attn]",
    "evit",
    "repshift",
)
DROPPING = ("tome[drop]", "tome[random-drop]", "evit", "repshift")
CHAINS = ("lite+tome", "random+tome[prop-attn]", "uniform+pitome")
# They need a file or a detector of their own, and have their own tests.
APART = ("motion-vectors", "saliency", "rlt")


def test_none_is_forgotten():
    tested = {parse_method(name).name for name in (*BEFORE, *LABELLED, *INSIDE, "sta")}
    tested.add("vid-tldr")
    assert tested | set(APART) == set(METHODS)


def cases(*parts):
    """(methods, backbones) ... -> each of those methods on each of those backbones."""
    return [
        pytest.param((method, backbone), id=f"{method}-{backbone}")
        for methods, backbones in parts
        for backbone in backbones
        for method in methods
    ]


_made: dict[str, tuple[Path, Backbone]] = {}


class OnBackbones(MethodTests):
    """Inherited with a fixture `case`, one of `cases`."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, case, tmp_path_factory) -> Path:
        name = case[1]
        if name not in _made:
            folder = KINDS[name](tmp_path_factory.mktemp("backbone"))
            _made[name] = folder, load_backbone(str(folder))
        return _made[name][0]

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, case, folder):
        return _made[case[1]][1]

    @pytest.fixture(scope="class")
    @classmethod
    def method(cls, case, backbone, folder):
        name = parse_method(case[0])
        trained = {name.selected_by: make_selector(backbone, str(folder))}
        return make_method(name, Parts(backbone, selectors=trained if name.selected_by else {}))


class TestBefore(OnBackbones):
    @pytest.fixture(scope="class", params=cases((BEFORE, KINDS)))
    @classmethod
    def case(cls, request):
        return request.param

    def overhead_of_the_run(self, method, setting, costs):
        return 0.0


class TestOracles(OnBackbones):
    looks_at_labels = True

    @pytest.fixture(scope="class", params=cases((LABELLED, KINDS)))
    @classmethod
    def case(cls, request):
        return request.param


class TestInside(OnBackbones):
    @pytest.fixture(scope="class", params=cases((INSIDE, JOINT), (DROPPING, [DIVIDED])))
    @classmethod
    def case(cls, request):
        return request.param


class TestVidTLDR(OnBackbones):
    @pytest.fixture(scope="class", params=cases((("vid-tldr", "vid-tldr[merge=6:2:1]"), JOINT)))
    @classmethod
    def case(cls, request):
        return request.param

    def check_sizes(self, left, clip, backbone):
        """Sources count for as much as they are salient, so sizes are at most the members."""
        members = torch.bincount(left.group[clip], minlength=left.num)
        size, members = left.size[clip, left.off_grid :], members[left.off_grid :]
        assert (size <= members + 1e-5).all()
        assert (size >= 1).all()


def test_vid_tldr_is_not_cut_to_the_blocks_there_are(tmp_path):
    backbone = load_backbone(
        str(save_videomae(tmp_path, **(KIND_SIZES | {"num_hidden_layers": 3})))
    )
    with pytest.raises(ConfigError, match=r"first 4 blocks, and there are 3: ask for vid-tldr\[bl"):
        make_method(parse_method("vid-tldr"), Parts(backbone))
    make_method(parse_method("vid-tldr[blocks=3]"), Parts(backbone))


class TestSTA(OnBackbones):
    @pytest.fixture(
        scope="class",
        params=cases((["sta"], [kind for kind in JOINT if kind != "VideoMAE, first token"])),
    )
    @classmethod
    def case(cls, request):
        return request.param


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_mean_pooling": False}, "the first token has to stay"),
        ({"num_frames": 6}, "a clip has 3 tubelets"),
        ({"num_hidden_layers": 2}, "three different blocks, and there are 2"),
    ],
)
def test_sta_says_whom_it_cannot_serve(tmp_path, changes, reason):
    backbone = load_backbone(str(save_videomae(tmp_path, **(KIND_SIZES | changes))))
    with pytest.raises(ConfigError, match=reason):
        make_method(parse_method("sta"), Parts(backbone))


def test_sta_says_why_it_gets_no_cheaper(tmp_path):
    backbone = load_backbone(str(save_videomae(tmp_path, **KIND_SIZES)))
    sta = make_method(parse_method("sta"), Parts(backbone))
    with pytest.raises(UnreachableBudgetError, match="at most half of a group.*: ask for no less"):
        sta.setting(0.05, CostModel(backbone))


def test_sta_cannot_come_after_another(tmp_path):
    backbone = load_backbone(str(save_videomae(tmp_path, **KIND_SIZES)))
    with pytest.raises(ConfigError, match="sta needs all tokens of the grid, and random drops"):
        make_method(parse_method("random+sta"), Parts(backbone))


class TestChains(OnBackbones):
    @pytest.fixture(scope="class", params=cases((CHAINS, JOINT), (["random+evit"], [DIVIDED])))
    @classmethod
    def case(cls, request):
        return request.param

    def overhead_of_the_run(self, method, setting, costs):
        first = method.first.overhead(setting[0], costs.flow)
        return method.overhead(setting, costs.flow) - first


@pytest.mark.parametrize("name", ["tome", "tome[hybrid]", "pitome", "vid-tldr", "sta", "lite+tome"])
def test_divided_attention_is_refused_where_tokens_would_merge(tmp_path, name):
    backbone = load_backbone(str(KINDS[DIVIDED](tmp_path)))
    selector = {"lite": make_selector(backbone, "")}
    with pytest.raises(ConfigError, match="ties each token to its frame and to its column"):
        make_method(parse_method(name), Parts(backbone, selectors=selector))
