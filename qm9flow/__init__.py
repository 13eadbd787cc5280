"""qm9flow: from QM9's tables to a promoted, exported, served graph neural network."""

__version__ = "0.1.0"
