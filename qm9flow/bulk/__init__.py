"""Files of molecules in, files of predictions out: any number of rows in bounded memory.

`readers/` turns a file into rows, `writers/` rows into a file, `run` does what lies between in
chunks, and `output` makes it go on where it was killed. Knows no torch.
"""
