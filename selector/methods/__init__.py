"""Every way to make a clip cheaper, what it keeps and what it costs."""
