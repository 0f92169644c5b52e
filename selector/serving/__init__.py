"""A model behind HTTP: uploads, decoders and the model's process, each of which may fail alone."""
