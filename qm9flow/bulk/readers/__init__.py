"""One module a format: bytes to rows, in bounded memory whatever the bytes are."""
