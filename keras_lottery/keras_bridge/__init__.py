"""The one door to Keras: masked layers, the state of a model, copies, gradients."""
