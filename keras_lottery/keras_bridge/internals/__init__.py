"""Keras's private names and patches of its methods: all of them, and nowhere else.

Each function says which private name it stands for, on which versions of Keras it was
seen, and what breaks without it. When Keras changes, this folder changes, and
`.ci/matrix -s 'keras(next)'` says where. `tests/keras_bridge/test_internals.py` refuses
a private name of Keras anywhere else.
"""
