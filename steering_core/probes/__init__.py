"""Linear probes of a concept in the residual stream, and the choice of a layer from them."""
