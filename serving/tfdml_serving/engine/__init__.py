"""Search in a bundle and the living catalogue beside it. Loads no TensorFlow."""
