"""The insides of Keras: masked layers, the state of a model, copies, gradients, graphs.

Private names of Keras are in `internals/`, and nowhere else.
"""
