"""The design space: what an autoencoder is made of, a registry for each slot, and the zoo, a row for each model."""
