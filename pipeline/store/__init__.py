"""The store: layout, writer, reader and the check of both."""
