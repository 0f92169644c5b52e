"""What a build and an evaluation are made from is one thing, however it was spelt."""

from datasets_spec import load_spec
from datasets_spec.synthetic import make
from pipeline.clips.inputs import ClipRequest, read_inputs


def test_a_split_is_stored_as_the_specification_spells_it(tmp_path):
    make(tmp_path / "data", 20, workers=0)
    request = ClipRequest(
        dataset="synthetic", data_root=str(tmp_path / "data"), backbone="synthetic", shard_size=4
    )
    found = [
        read_inputs(request, load_spec("synthetic"), split, without_label=None).config
        for split in ("val", "validation")
    ]
    assert found[0].split == "validation"
    assert found[0].identity() == found[1].identity()
