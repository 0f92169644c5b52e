"""Every method keeps the promises of `tests/conformance/methods.py`, on every backbone it fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.methods.registry import METHODS, Parts, make_method, parse_method
from selector.training.files import save_selector
from tests.checkpoints import save_videomae
from tests.conformance.methods import MethodTests
from tests.lite_models import make_selector

SIZES = {"image_size": 32, "num_frames": 16, "num_hidden_layers": 5}
BACKBONES = {
    "mean": {"use_mean_pooling": True},
    "first token": {"use_mean_pooling": False},
}
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
CHAINS = ("lite+tome", "random+tome[prop-attn]", "uniform+pitome")
# They need a file or a detector of their own, and have their own tests.
APART = ("motion-vectors", "saliency")


def test_none_is_forgotten():
    tested = {parse_method(name).name for name in (*BEFORE, *LABELLED, *INSIDE, "sta")}
    tested.add("vid-tldr")
    assert tested | set(APART) == set(METHODS)


class OnVideoMAE(MethodTests):
    @pytest.fixture(scope="class", params=BACKBONES)
    @classmethod
    def folder(cls, request, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("videomae")
        return save_videomae(folder, **SIZES, **BACKBONES[request.param])

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, folder):
        return load_backbone(str(folder))

    @classmethod
    def make(cls, name, backbone, folder, tmp_path_factory):
        selector = tmp_path_factory.mktemp("selector")
        save_selector(make_selector(backbone, str(folder)), selector)
        return make_method(parse_method(name), Parts(backbone, selectors={"lite": str(selector)}))


class TestBefore(OnVideoMAE):
    @pytest.fixture(scope="class", params=BEFORE)
    @classmethod
    def method(cls, request, backbone, folder, tmp_path_factory):
        return cls.make(request.param, backbone, folder, tmp_path_factory)

    def overhead_of_the_run(self, method, setting, costs):
        return 0.0


class TestOracles(OnVideoMAE):
    looks_at_labels = True

    @pytest.fixture(scope="class", params=LABELLED)
    @classmethod
    def method(cls, request, backbone, folder, tmp_path_factory):
        return cls.make(request.param, backbone, folder, tmp_path_factory)


class TestInside(OnVideoMAE):
    @pytest.fixture(scope="class", params=INSIDE)
    @classmethod
    def method(cls, request, backbone, folder, tmp_path_factory):
        return cls.make(request.param, backbone, folder, tmp_path_factory)


class TestVidTLDR(OnVideoMAE):
    @pytest.fixture(scope="class", params=("vid-tldr", "vid-tldr[blocks=2]"))
    @classmethod
    def method(cls, request, backbone, folder, tmp_path_factory):
        return cls.make(request.param, backbone, folder, tmp_path_factory)

    def check_sizes(self, left, clip, backbone):
        """Sources count for as much as they are salient, so sizes are at most the members."""
        members = torch.bincount(left.group[clip], minlength=left.num)
        assert (left.size[clip] <= members + 1e-5).all()
        assert (left.size[clip] >= 1).all()


class TestSTA(OnVideoMAE):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return save_videomae(tmp_path_factory.mktemp("videomae"), **SIZES)

    @pytest.fixture(scope="class")
    @classmethod
    def method(cls, backbone, folder, tmp_path_factory):
        return cls.make("sta", backbone, folder, tmp_path_factory)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_mean_pooling": False}, "the first token has to stay"),
        ({"num_frames": 6}, "a clip has 3 tubelets"),
        ({"num_hidden_layers": 2}, "three different blocks, and there are 2"),
    ],
)
def test_sta_says_whom_it_cannot_serve(tmp_path, changes, reason):
    backbone = load_backbone(str(save_videomae(tmp_path, **(SIZES | changes))))
    with pytest.raises(ConfigError, match=reason):
        make_method(parse_method("sta"), Parts(backbone))


def test_sta_cannot_come_after_another(tmp_path):
    backbone = load_backbone(str(save_videomae(tmp_path, **SIZES)))
    with pytest.raises(ConfigError, match="sta needs all tokens of the grid, and random drops"):
        make_method(parse_method("random+sta"), Parts(backbone))


class TestChains(OnVideoMAE):
    @pytest.fixture(scope="class", params=CHAINS)
    @classmethod
    def method(cls, request, backbone, folder, tmp_path_factory):
        return cls.make(request.param, backbone, folder, tmp_path_factory)

    def overhead_of_the_run(self, method, setting, costs):
        first = method.first.overhead(setting[0], costs.flow)
        return method.overhead(setting, costs.flow) - first
