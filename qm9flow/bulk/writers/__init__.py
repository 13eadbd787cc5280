"""One module a format: rows to bytes that are only ever appended, and the file made of them."""
