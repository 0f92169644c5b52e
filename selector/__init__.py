"""Stage 2 of LITE Pipeline: train a token selector from the store, select, evaluate.

After `import selector` transformers knows the folders that `export-lite` and `accelerate` write:
`AutoModelForVideoClassification.from_pretrained` and `pipeline("video-classification", ...)`.

    import selector as lite

    lite.apply(model, method="tome", keep_ratio=0.5)  # any video classifier of transformers
    lite.remove(model)
"""

from typing import TYPE_CHECKING, Any

from selector.deploy.registering import register_with_transformers

if TYPE_CHECKING:
    from selector.deploy.applying import apply, remove

__all__ = ["apply", "remove"]

register_with_transformers()


def __getattr__(name: str) -> Any:
    """The functions of `__all__`, whose module needs torch, when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from selector.deploy import applying

    return getattr(applying, name)
