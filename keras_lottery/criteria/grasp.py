"""The effect of a weight on how fast the loss falls, before training."""

from keras_lottery.allocation import Scores
from keras_lottery.ticket import Snapshot


def grasp(snapshot: Snapshot) -> Scores:
    """w (H g): keeps the weights without which the gradient would be smaller.

    g is the gradient and H the Hessian of the compiled loss on all of the data, by the
    weights that are left. To first order, removing weights w changes the gradient flow
    gᵀg by -2 Σ w (H g). The paper calls S = -w (H g) the score and prunes the largest:
    here, larger means keep.

    Reference:
        Wang et al. 2020, "Picking winning tickets before training by preserving
        gradient flow": the score S, with its sign turned.
    """
    gradients = snapshot.gradients()
    alive = {name: gradients[name] * mask for name, mask in snapshot.masks.items()}
    products = snapshot.hessian_vector_product(alive)
    return {name: snapshot.final[name] * products[name] for name in snapshot.masks}
