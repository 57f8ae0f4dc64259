"""Loops over packed tokens, compiled for the CPU at hand by numba: what the packed forward pass does between products.

Each is one pass over its tokens, in fp32, without the GIL, so that a thread can run one for each core. They are the
formulas of `model/` once more, written out; tests hold them against it. Shapes: N tokens of all sequences, one after
the other, R rows (the tokens whose outputs are wanted), B sequences, S streams, H hidden, A heads, D head width.
"""
