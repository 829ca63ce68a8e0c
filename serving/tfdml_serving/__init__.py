"""The retrieval service. It imports no TensorFlow."""
