"""The deployable model: backbone, selector and budget behind one call."""
