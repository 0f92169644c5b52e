"""Stage 2 of LITE Pipeline: train a token selector from the store, select, evaluate.

After `import selector` transformers knows the folders that `export-lite` and `accelerate` write:
`AutoModelForVideoClassification.from_pretrained` and `pipeline("video-classification", ...)`.
"""

from selector.deploy.registering import register_with_transformers

register_with_transformers()
