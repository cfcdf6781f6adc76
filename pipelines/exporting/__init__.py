"""From a trained network to models that are served: written, compressed, verified, opened."""
