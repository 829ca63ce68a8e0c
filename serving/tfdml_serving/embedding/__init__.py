"""Image files to embeddings, by exactly the version that is asked for."""
