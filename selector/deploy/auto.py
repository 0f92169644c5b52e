"""A deployable model as a model of transformers: `AutoModelForVideoClassification` and all above.

    import selector
    from transformers import AutoModelForVideoClassification, pipeline

    model = AutoModelForVideoClassification.from_pretrained("MODEL")
    pipeline("video-classification", model="MODEL")("clip.mp4")

`import selector` is what makes transformers know it (`selector.deploy.registering`). Files and
forward pass are `LiteModel`'s; this class has the interface.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForVideoClassification, PreTrainedModel

from pipeline.errors import ConfigError, reason_of
from selector.deploy.transformers_config import LiteVideoConfig, transformers_config

_OURS = ("revision", "backbone", "spread", "method")
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    # What callers in transformers pass along, and what it may be as there is nothing to do for it.
    "trust_remote_code": (None, False, True),
    "code_revision": (None, "main"),
    "low_cpu_mem_usage": (None, False, True),
    "use_safetensors": (None, True),
    "attn_implementation": (None, "sdpa"),
    "output_loading_info": (None, False),
    "ignore_mismatched_sizes": (None, False),
    "force_download": (None, False),
    "local_files_only": (None, False),
    "cache_dir": (None,),
    "token": (None,),
    "subfolder": (None, ""),
    "variant": (None,),
    "quantization_config": (None,),
    "state_dict": (None,),
    "return_dict": (None, True),
}


class LiteForVideoClassification(PreTrainedModel):
    """A video classifier that leaves out most of its tokens.

    Args:
        config: as `transformers_config` makes it.
        lite: the model itself.

    Raises:
        ConfigError: there is no `lite`; random weights would be of no use.
    """

    config_class = LiteVideoConfig
    base_model_prefix = "lite"
    main_input_name = "pixel_values"
    input_modalities = "video"
    _supports_sdpa = True

    def __init__(self, config: LiteVideoConfig, lite: Any = None) -> None:
        if lite is None:
            raise ConfigError(
                "a LITE model is made from a trained one: from_pretrained(FOLDER), where FOLDER is "
                "what `lite-pipeline accelerate` or `export-lite` wrote"
            )
        super().__init__(config)
        self.lite = lite
        self.post_init()

    def init_weights(self) -> None:
        """Draws none: what transformers did not load itself it takes for new, and ours are not."""

    def _init_weights(self, module: torch.nn.Module) -> None:
        """As `init_weights`, of one module."""

    @classmethod
    def of(cls, lite: Any) -> LiteForVideoClassification:
        """The same model, a `LiteModel`, with the interface of transformers."""
        return cls(transformers_config(lite), lite).eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *args: Any, **options: Any
    ) -> LiteForVideoClassification:
        """Load a folder that `save_pretrained` wrote, or a hub id; weights are checked strictly.

        Args:
            pretrained_model_name_or_path: folder or hub id.
            *args: none.
            **options: `dtype` (by default the folder's own), `device_map` (one device), `config`
                (its class names are taken), and `revision`, `backbone`, `spread`, `method` as
                `LiteModel.from_pretrained` has them.

        Raises:
            ConfigError: an option that means nothing here, or see `LiteModel.from_pretrained`.
        """
        from selector.deploy.model import LiteModel

        config = options.pop("config", None)
        dtype = options.pop("dtype", options.pop("torch_dtype", None))
        device = _device(options.pop("device_map", None))
        ours = {name: options.pop(name) for name in _OURS if name in options}
        # With peft installed, the auto class says here where it looked for an adapter; it says more
        # where it found one.
        adapter = options.pop("adapter_kwargs", None) or {}
        if adapter.keys() - {"revision", "token"}:
            options["adapter_kwargs"] = adapter
        unknown = [
            f"{name}={value!r}"
            for name, value in options.items()
            if not name.startswith("_") and value not in _DEFAULTS.get(name, ())
        ]
        if args or unknown:
            raise ConfigError(
                f"a LITE model cannot be loaded with {', '.join([*map(repr, args), *unknown])}; it "
                f"takes dtype, device_map and {', '.join(_OURS)}, and of the hub what the "
                "variables HF_TOKEN, HF_HOME and HF_HUB_OFFLINE say"
            )
        lite = LiteModel.from_pretrained(
            pretrained_model_name_or_path, device=device, precision=_precision(dtype), **ours
        )
        if isinstance(config, LiteVideoConfig):
            _name_classes(lite, config)
        model = cls.of(lite)
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        return model

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        is_main_process: bool = True,
        max_shard_size: str | int | None = None,
        with_backbone: bool = True,
        push_to_hub: bool = False,
        safe_serialization: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        **others: Any,
    ) -> None:
        """Make the model in a folder this one; see `LiteModel.save_pretrained`.

        Args:
            save_directory: made if needed.
            is_main_process: others write nothing.
            max_shard_size: as in `LiteModel.save_pretrained`.
            with_backbone: as in `LiteModel.save_pretrained`.
            push_to_hub: refused; there is a method of that name.
            safe_serialization: weights are safetensors, always.
            state_dict: what a Trainer passes, the weights of this model.
            **others: a `token`, which a folder needs none of.

        Raises:
            ConfigError: as `LiteModel.save_pretrained`, or an option that means nothing here.
        """
        refused = [name for name in others if name != "token" and others[name] is not None]
        refused += ["push_to_hub"] * push_to_hub
        refused += ["safe_serialization=False"] * (not safe_serialization)
        if refused:
            raise ConfigError(
                f"a LITE model is not saved with {', '.join(refused)}; its weights are always "
                "safetensors, and model.push_to_hub(OWNER/NAME) uploads it"
            )
        if is_main_process:
            _name_classes(self.lite, self.config)
            self.lite.save_pretrained(save_directory, with_backbone, max_shard_size)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]
        """Upload the model; see `LiteModel.push_to_hub`."""
        _name_classes(self.lite, self.config)
        address: str = self.lite.push_to_hub(repo_id, **options)
        return address

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        keep_ratio: float | torch.Tensor | None = None,
        adaptive: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify clips; see `LiteModel.forward`.

        Args:
            pixel_values: (B, T, 3, H, W), from the folder's processor.
            labels: int64 (B,), for the loss.
            keep_ratio: of every clip, or one for each; default the model's.
            adaptive: whether each clip gets a budget of its own; default the model's.
            return_dict: False for a tuple.

        Returns:
            A `LiteOutput`, or the tuple of its fields that are set.
        """
        output = self.lite(pixel_values, keep_ratio, adaptive, labels)
        return output.to_tuple() if return_dict is False else output


def register() -> None:
    """Makes `AutoModelForVideoClassification` load our folders."""
    AutoModelForVideoClassification.register(
        LiteVideoConfig, LiteForVideoClassification, exist_ok=True
    )


def _precision(dtype: torch.dtype | str | None) -> str | None:
    """Name of a precision; None for that of the folder."""
    if dtype is None or dtype == "auto":
        return None
    from pipeline.backbones import DTYPES

    wanted = str(dtype).removeprefix("torch.")
    for name, known in DTYPES.items():
        if wanted == str(known).removeprefix("torch."):
            return name
    raise ConfigError(
        f"a LITE model runs in {', '.join(str(known) for known in DTYPES.values())}, got {dtype!r}"
    )


def _device(device_map: Any) -> str:
    """The one device of a `device_map`."""
    if isinstance(device_map, dict) and list(device_map) == [""]:
        device_map = device_map[""]
    if device_map is None:
        return "cpu"
    if device_map == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(device_map, int) and not isinstance(device_map, bool):
        device_map = f"cuda:{device_map}"
    try:
        device = torch.device(device_map)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    if device.type == "meta":  # where there are no weights
        raise ConfigError(
            f"a LITE model lies on one device: device_map takes 'auto', a device, or {{'': "
            f"device}}, got {device_map!r}"
        )
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, no driver, not built for it
        raise ConfigError(
            f"device_map={device_map!r} cannot be used here: {reason_of(error)}"
        ) from error
    return str(device)


def _name_classes(lite: Any, config: Any) -> None:
    """Gives a model the class names of a configuration.

    Raises:
        ConfigError: they are not as many as its head has classes.
    """
    names = {int(number): name for number, name in config.id2label.items()}
    theirs = lite.backbone.model.config
    if sorted(names) != list(range(lite.backbone.num_classes)):
        raise ConfigError(
            f"the model's head has {lite.backbone.num_classes} classes, and {len(names)} names "
            "were given; fine-tune the backbone for other classes, then accelerate it"
        )
    if names != {int(number): name for number, name in theirs.id2label.items()}:
        theirs.id2label = names
        theirs.label2id = {name: number for number, name in names.items()}
        lite.backbone.label_names = list(dict(sorted(names.items())).values())
